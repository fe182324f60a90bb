"""Programs run as users run them: in a process of their own, with warnings as errors."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs Python with these arguments in an empty folder; fails the test if it does not exit as expected."""

    def run_python(
        *arguments: str | Path,
        backend: str = "asyncio",
        exits: int = 0,
        options: Sequence[str] = ("-W", "error"),
        url: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        settings = {name: value for name, value in os.environ.items() if not name.startswith("RUSTMQ_")}
        if url is not None:
            settings["RUSTMQ_URL"] = url

        found = subprocess.run(
            [sys.executable, *options, *map(str, arguments)],
            env={**settings, "BACKEND": backend, "PYTHONPATH": str(ROOT)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=170,
            check=False,
        )
        assert found.returncode == exits, f"exit status {found.returncode}\n{found.stdout}\n{found.stderr}"
        return found

    return run_python
