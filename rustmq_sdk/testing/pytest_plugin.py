"""A pytest plugin, for those who ask for it: ``pytest_plugins = ["rustmq_sdk.testing.pytest_plugin"]``.

Fixtures:

* ``both_loops``: asyncio and trio, one after the other, as anyio's plugin wants them. Say
  ``anyio_backend = both_loops`` in a conftest, as a fixture that returns it, to run every test on both.
* ``memory_driver``: an open in-memory driver of the test's own. ``memory_client``: a client of one.

Markers:

* ``virtual_time`` (for a class or a module): time jumps. See :mod:`rustmq_sdk.testing.clock` for when it must not.
* ``service(name)``: needs a server. A conftest says what there is by the hook ``pytest_rustmq_services``; what is
  missing is named in the header and skipped, and with ``--require-services`` it fails.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
from collections.abc import AsyncIterator, Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any

import pytest

from rustmq_sdk.testing.clock import BACKENDS, Backend, is_virtual, virtual_time

if TYPE_CHECKING:
    from rustmq_sdk.client import Client
    from rustmq_sdk.drivers.memory import MemoryDriver

pytest.register_assert_rewrite("rustmq_sdk.testing.contracts")

INSTALLED = tuple(backend for backend in BACKENDS if importlib.util.find_spec(backend) is not None)
_services = pytest.StashKey[Mapping[str, "str | None"]]()


class Hooks:
    """The hooks that a conftest may implement."""

    @pytest.hookspec
    def pytest_rustmq_services(self, config: pytest.Config) -> Mapping[str, str | None]:
        """Returns the servers that tests may need, each with None if it answers, or with the reason why it does not."""
        raise NotImplementedError


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Adds the hook by which a conftest names servers."""
    pluginmanager.add_hookspecs(Hooks)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds ``--require-services``."""
    parser.getgroup("rustmq").addoption(
        "--require-services", action="store_true", help="fail tests whose server is missing, instead of skipping them"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Names the markers, and asks which servers there are."""
    config.addinivalue_line("markers", "virtual_time: time jumps to the next timer (for a class or a module)")
    config.addinivalue_line("markers", "service(name): needs a server; see pytest_rustmq_services")
    found: dict[str, str | None] = {}
    for services in config.hook.pytest_rustmq_services(config=config):
        found.update(services)

    config.stash[_services] = found


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Says what runs and what is missing."""
    services = config.stash[_services]
    present = ", ".join(name for name, problem in services.items() if problem is None)
    missing = [f"{name} ({problem})" for name, problem in services.items() if problem is not None]
    missing += [f"{backend} (not installed)" for backend in BACKENDS if backend not in INSTALLED]
    lines = [f"rustmq: loops {', '.join(INSTALLED)}; services {present or 'none'}"]
    if missing:
        fate = "fail" if config.getoption("--require-services") else "are skipped"
        lines.append(f"rustmq: MISSING {', '.join(missing)}: tests that need them {fate}")

    return lines


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips or fails a test whose server is missing."""
    services = item.config.stash[_services]
    for marker in item.iter_markers("service"):
        (name,) = marker.args
        problem = services.get(name, "no conftest says where it is: see the hook pytest_rustmq_services")
        if problem is None:
            continue

        if item.config.getoption("--require-services"):
            pytest.fail(f"needs {name}, and --require-services is given: {problem}", pytrace=False)

        pytest.skip(f"needs {name}: {problem}")


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Ends a test in virtual time in which everybody waits for ever, at once and with a traceback to where."""
    test, backend = pyfuncitem.obj, pyfuncitem.funcargs.get("anyio_backend")
    if isinstance(backend, tuple) and is_virtual(backend[1]) and inspect.iscoroutinefunction(test):
        pyfuncitem.obj = _limited(test)
        try:
            return (yield)
        finally:
            pyfuncitem.obj = test

    return (yield)


@pytest.fixture(scope="class", params=INSTALLED)
def both_loops(request: pytest.FixtureRequest) -> tuple[Backend, dict[str, Any]]:
    """Runs a test on asyncio and on trio, in virtual time where the class or module is marked ``virtual_time``."""
    virtual = request.node.get_closest_marker("virtual_time") is not None
    return request.param, dict(virtual_time(request.param)) if virtual else {}


@pytest.fixture
async def memory_driver() -> AsyncIterator[MemoryDriver]:
    """An open in-memory driver of the test's own."""
    from rustmq_sdk.drivers.memory import MemoryDriver

    async with MemoryDriver() as driver:
        yield driver


@pytest.fixture
async def memory_client() -> AsyncIterator[Client]:
    """A client of an in-memory broker of the test's own."""
    from rustmq_sdk.client import Client

    async with Client("memory://") as client:
        yield client


def _limited(test: Callable[..., Any]) -> Callable[..., Any]:
    from rustmq_sdk.testing.schedules import DAY, within

    @functools.wraps(test)
    async def limited(*args: Any, **kwargs: Any) -> None:
        await within(DAY, functools.partial(test, *args, **kwargs))

    return limited
