"""The pytest plugin: what is missing is named and never passed over in silence, and it does nothing unasked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

PYTEST = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-rs", "--anyio-mode=auto"]

CONFTEST = """
import pytest
pytest_plugins = ["rustmq_sdk.testing.pytest_plugin"]

def pytest_rustmq_services(config):
    return {"here": None, "away": "nothing listens on port 4222"}

@pytest.fixture(scope="class")
def anyio_backend(both_loops):
    return both_loops
"""

SERVICES = """
import pytest

@pytest.mark.service("here")
def test_runs(): ...

@pytest.mark.service("away")
def test_needs_a_server(): ...

@pytest.mark.service("unheard-of")
def test_needs_what_nobody_named(): ...
"""

TIME = """
import anyio, pytest

pytestmark = pytest.mark.virtual_time

async def test_an_hour():
    began = anyio.current_time()
    await anyio.sleep(3600)
    assert anyio.current_time() - began >= 3599

async def test_for_ever():
    await anyio.Event().wait()
"""

FIXTURES = """
from rustmq_sdk.values import OutgoingMessage

async def test_driver(memory_driver):
    await memory_driver.sink().append("t", 0, [OutgoingMessage(b"x")], sequence=None)
    assert memory_driver.broker.topics() == {"t": 1}

async def test_client(memory_client):
    await memory_client.create_topic("t", 3)
    assert await memory_client.topics() == {"t": 3}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "conftest.py").write_text(CONFTEST)
    return tmp_path


def run_pytest(project: Path, source: str, *options: str) -> str:
    (project / "test_it.py").write_text(source)
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [*PYTEST, *options, "test_it.py"],
        cwd=project,
        env={"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    return done.stdout + done.stderr


def test_a_missing_service_is_named_and_skipped(project: Path) -> None:
    output = run_pytest(project, SERVICES, "-v")
    assert "services here" in output
    assert "MISSING away (nothing listens on port 4222)" in output
    assert "1 passed, 2 skipped" in output
    assert "no conftest says where it is" in output


def test_a_missing_service_fails_where_services_are_required(project: Path) -> None:
    output = run_pytest(project, SERVICES, "--require-services", "-v")
    assert "tests that need them fail" in output
    assert "1 passed, 2 errors" in output


def test_time_jumps_and_waiting_for_ever_fails(project: Path) -> None:
    output = run_pytest(project, TIME)
    assert "2 failed, 2 passed" in output
    assert output.count("TimeoutError: no end after 86400 s") >= 2


def test_the_fixtures_work_on_both_loops(project: Path) -> None:
    assert "4 passed" in run_pytest(project, FIXTURES)


def test_without_being_asked_it_is_not_there(project: Path) -> None:
    (project / "conftest.py").unlink()
    output = run_pytest(project, "def test_it(): ...", "-v")
    assert "1 passed" in output
    assert "rustmq" not in output


def test_it_is_light_to_import() -> None:
    """Neither trio nor a driver's client is loaded before a test asks for it."""
    root = Path(__file__).parents[2]
    program = (
        "import sys; import rustmq_sdk.testing.pytest_plugin; "
        "print([name for name in ('trio', 'aiokafka', 'apsw', 'hypothesis') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": str(root)}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
