"""scripts/setup installs what is missing, and nothing twice."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = ("pyproject.toml", "scripts/setup", "scripts/_extras", "scripts/_python")
PYTHON = f"""#!/bin/sh
case "$*" in
*"pip --version"*) ;;
*"pip install"*) echo "$*" >>"$(dirname "$0")/installed" ;;
*) exec {sys.executable} "$@" ;;
esac
"""
"""A Python that only says what it was told to install."""


class Checkout:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in FILES:
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copy(ROOT / name, folder / name)

        self.python = folder / ".venv" / "bin" / "python"
        self.python.parent.mkdir(parents=True)
        self.python.write_text(PYTHON)
        self.python.chmod(0o755)

    def set_up(self, *extras: str, exits: int = 0) -> str:
        """Runs the script; returns what it said."""
        environment = {name: value for name, value in os.environ.items() if name != "VENV"}
        run = subprocess.run(
            ["bash", "scripts/setup", *extras],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == exits, run.stderr
        return run.stderr

    @property
    def installed(self) -> list[str]:
        """What was installed: the project, with the extras in brackets."""
        log = self.python.parent / "installed"
        return [line.rpartition(" ")[2] for line in log.read_text().splitlines()] if log.exists() else []


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


@pytest.mark.parametrize("then", [["kafka"], ["cli", "kafka"], ["trio", "kafka"], []])
def test_what_came_as_a_part_of_something_else_is_not_installed_again(checkout: Checkout, then: list[str]) -> None:
    checkout.set_up("kafka", "cli")
    checkout.set_up("test")
    assert checkout.installed == [".[cli,kafka]", ".[test,trio,yaml]"]
    assert checkout.set_up(*then) == ""
    assert len(checkout.installed) == 2


def test_only_what_is_missing_is_installed(checkout: Checkout) -> None:
    checkout.set_up()
    checkout.set_up("trio")
    assert "rustmq-sdk[kafka]" in checkout.set_up("trio", "kafka")
    assert checkout.installed == [".", ".[trio]", ".[kafka]"]


def test_a_newer_list_of_requirements_is_installed(checkout: Checkout) -> None:
    checkout.set_up("trio", "kafka")
    ours = checkout.folder / "pyproject.toml"
    later = ours.stat().st_mtime + 1000
    os.utime(ours, (later, later))
    checkout.set_up("trio")
    assert checkout.installed == [".[kafka,trio]", ".[trio]"]


def test_an_extra_that_there_is_not_is_an_error(checkout: Checkout) -> None:
    assert "no extra 'kafak'. Those it has: trio, kafka, " in checkout.set_up("kafak", exits=1)
    assert checkout.installed == []
