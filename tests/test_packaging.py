"""The wheel is all a user needs: installed alone, it runs the README's first program."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", directory)
    (built,) = directory.iterdir()
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with nothing in it but the wheel and what it asks for."""
    directory = tmp_path_factory.mktemp("venv")
    run(sys.executable, "-m", "venv", directory)
    python = directory / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    run(python, "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check", wheel)
    return python


def test_the_wheel_contains_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()

    tops = {name.partition("/")[0] for name in names}
    assert tops == {"rustmq_sdk", f"rustmq_sdk-{wheel.name.split('-')[1]}.dist-info"}
    assert "rustmq_sdk/py.typed" in names
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert not [name for name in names if name.endswith((".pyc", ".db"))]


def test_the_first_program_of_the_readme_runs_on_the_wheel_alone(python: Path, tmp_path: Path) -> None:
    program = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert program is not None
    (tmp_path / "first.py").write_text(program[1])
    assert run(python, "-W", "error", "first.py", cwd=tmp_path).splitlines() == [
        "Hello Ada! You are number 0.",
        "Hello Grace! You are number 1.",
        "Hello Edsger! You are number 2.",
    ]
    assert run(python, "-W", "error", "first.py", cwd=tmp_path).splitlines()[0] == "Hello Ada! You are number 3."
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith("hello.db-")) == [
        "first.py",
        "hello.db",
    ]


def test_the_package_and_its_modules_import_without_any_extra(python: Path, tmp_path: Path) -> None:
    program = (
        "import importlib, pkgutil, rustmq_sdk\n"
        "for info in pkgutil.walk_packages(rustmq_sdk.__path__, 'rustmq_sdk.', onerror=lambda name: None):\n"
        "    if not info.name.startswith(('rustmq_sdk.cli', 'rustmq_sdk.testing', 'rustmq_sdk.drivers.')):\n"
        "        importlib.import_module(info.name)\n"
        "print(rustmq_sdk.__version__)\n"
    )
    assert run(python, "-W", "error", "-c", program, cwd=tmp_path)
