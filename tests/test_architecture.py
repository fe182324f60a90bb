"""What the package promises about itself: who may import whom, what is public, and what importing it costs."""

from __future__ import annotations

import ast
import importlib.metadata
import pkgutil
import re
import subprocess
import sys
import tomllib
import types
import typing
from pathlib import Path

import pytest

import rustmq_sdk
from rustmq_sdk import errors

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "rustmq_sdk"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FILES = sorted(PACKAGE.rglob("*.py"))

# The distribution's name where it is not the module's.
DISTRIBUTIONS = {"yaml": "pyyaml"}


def test_imports_go_in_one_direction() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_public_is_what_is_exported() -> None:
    exported = {
        name
        for name, value in vars(rustmq_sdk).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType) and name != "annotations"
    }
    assert sorted(rustmq_sdk.__all__) == sorted(exported)
    assert len(set(rustmq_sdk.__all__)) == len(rustmq_sdk.__all__)


@pytest.mark.parametrize("name", rustmq_sdk.__all__)
def test_a_public_class_shows_where_users_find_it(name: str) -> None:
    exported = getattr(rustmq_sdk, name)
    if isinstance(exported, type) and not exported.__annotations__:
        assert exported.__module__ == "rustmq_sdk"
    elif isinstance(exported, type):
        typing.get_type_hints(exported, include_extras=True)


@pytest.mark.parametrize("name", rustmq_sdk.__all__)
def test_everything_public_is_documented(name: str) -> None:
    exported = getattr(rustmq_sdk, name)
    assert exported.__doc__
    for member, value in vars(exported).items() if isinstance(exported, type) else ():
        if not member.startswith("_") and isinstance(value, types.FunctionType | property):
            assert value.__doc__, f"{name}.{member}"


def test_the_tree_of_errors_has_every_class_below_its_parent() -> None:
    drawn = re.findall(r"^    ((?:│   |    )*)(?:[├└]── )?(\w+)(?: \((\w+)\))?", errors.__doc__ or "", re.MULTILINE)
    above: list[str] = []
    parents: dict[str, set[str]] = {}
    for indent, name, other in drawn:
        if name == "RustMQError":
            above = [name]
        elif name in vars(errors) and issubclass(getattr(errors, name), errors.RustMQError):
            del above[len(indent) // 4 + 1 :]
            parents[name] = {above[-1], other} - {""}
            above.append(name)

    classes = [found for found in vars(errors).values() if isinstance(found, type)]
    ours = [found for found in classes if issubclass(found, errors.RustMQError) and found is not errors.RustMQError]
    assert parents == {found.__name__: {parent.__name__ for parent in found.__bases__} for found in ours}


def test_the_version_is_the_distributions() -> None:
    assert rustmq_sdk.__version__ == importlib.metadata.version("rustmq-sdk") == PYPROJECT["project"]["version"]
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        rustmq_sdk.nothing  # noqa: B018 - looking is the point


def test_importing_the_package_imports_no_client_of_a_broker_and_no_loop() -> None:
    unwanted = {"aiokafka", "apsw", "coredis", "nats", "psycopg", "rich", "trio", "typer", "yaml"}
    program = "import sys, rustmq_sdk; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert unwanted.isdisjoint(loaded.stdout.split())


def imported_names(path: Path) -> set[str]:
    """The top-level names of all absolute imports in a file, those inside functions included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])

    return names - set(sys.stdlib_module_names) - {"rustmq_sdk"}


def requirements(lines: list[str]) -> set[str]:
    found = (re.match(r"[A-Za-z0-9_.-]+", line) for line in lines)
    return {match.group().lower().replace("_", "-") for match in found if match}


def test_everything_that_is_imported_is_declared() -> None:
    declared = requirements(PYPROJECT["project"]["dependencies"])
    for extra in PYPROJECT["project"]["optional-dependencies"].values():
        declared |= requirements(extra)

    for path in FILES:
        needed = {DISTRIBUTIONS.get(name, name).replace("_", "-") for name in imported_names(path)}
        assert needed <= declared, path


def test_outside_drivers_cli_and_testing_only_required_packages_are_imported() -> None:
    """So that the package works with what ``pip install rustmq-sdk`` brings."""
    required = requirements(PYPROJECT["project"]["dependencies"])
    optional = {"_origin.py": {"yaml"}}
    for path in FILES:
        place = path.relative_to(PACKAGE)
        if place.parts[0] not in ("drivers", "cli", "testing"):
            assert imported_names(path) - optional.get(path.name, set()) <= required, path


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_every_module_can_be_imported_alone() -> None:
    """No import cycle hides behind a lucky order: what was imported first is imported in a process of its own."""
    modules = [info.name for info in pkgutil.walk_packages([str(PACKAGE)], "rustmq_sdk.")]
    public = [name for name in modules if "._" not in name and not name.startswith("rustmq_sdk.cli")]
    program = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    for loaded in [one for one in sys.modules if one.partition('.')[0] == 'rustmq_sdk']:\n"
        "        del sys.modules[loaded]\n"
        "    importlib.import_module(name)\n"
    )
    subprocess.run([sys.executable, "-c", program, *public], check=True, cwd=ROOT, capture_output=True)


def test_no_file_of_the_package_outgrows_its_subject() -> None:
    sizes = {path.relative_to(ROOT): len(path.read_text().splitlines()) for path in FILES}
    assert {path: size for path, size in sizes.items() if size > 400} == {}
