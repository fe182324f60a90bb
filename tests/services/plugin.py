"""Servers in pytest: a test asks for one by a fixture, and it is started while the tests before it run.

Fixtures, each of which marks its test ``service(…)``: ``kafka``, ``kafka_cluster`` (three nodes), ``redis_url``,
``nats_url``. Tests that need a server run last. Nothing is started for a selection that needs none; what was started
is stopped at the end; what was up before, by ``scripts/services up``, is used and stays. A server that somebody else
runs is named by ``--service kafka=HOST:PORT``.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Generator, Iterator, Mapping

import pytest

from tests.services.catalogue import CATALOGUE
from tests.services.checkout import Checkout
from tests.services.holding import Holding
from tests.services.kafka_server import KafkaServer, OwnKafka
from tests.services.service import ServiceFailed, ServiceMissing

FIXTURES = {"kafka": "kafka", "kafka_cluster": "kafka3", "redis_url": "redis", "nats_url": "nats"}


class Services:
    """What this run of the tests has started, and what it was told about."""

    def __init__(self, foreign: Mapping[str, str]) -> None:
        self.foreign = foreign
        self._holdings: dict[str, Holding] = {}
        self._clusters: dict[str, KafkaServer] = {}

    @functools.cached_property
    def missing(self) -> dict[str, str | None]:
        """Why a service cannot be had here; None if it can. Looked up once: asking a package system takes its time."""
        if os.name != "posix":
            return dict.fromkeys(CATALOGUE, "scripts/services works on Linux and macOS")

        artifacts = Checkout().artifacts
        return {
            name: None if name in self.foreign else service.missing(artifacts) for name, service in CATALOGUE.items()
        }

    def begin(self, name: str) -> None:
        """Starts a service in the background, unless that is done or it is somebody else's."""
        if name not in self.foreign and name not in self._holdings:
            self._holdings[name] = Holding(name)

    def wait(self, name: str) -> None:
        """Returns when it serves.

        Raises:
            ServiceFailed: it does not.
        """
        self.begin(name)
        if name in self._holdings:
            self._holdings[name].wait()

    def cluster(self, name: str) -> KafkaServer:
        """The Kafka of this name, which serves."""
        if name not in self._clusters:
            foreign = self.foreign.get(name)
            self._clusters[name] = KafkaServer(foreign) if foreign else OwnKafka(name)

        return self._clusters[name]

    def variable(self, name: str, key: str) -> str:
        """What ``scripts/services env`` says of a service that serves."""
        if name in self.foreign:
            return self.foreign[name]

        site = Checkout().site(CATALOGUE[name])
        assert site is not None, name
        return CATALOGUE[name].variables(site)[key]

    def mend(self, name: str) -> None:
        """Starts the nodes again that a test has killed."""
        cluster = self._clusters.get(name)
        if isinstance(cluster, OwnKafka):
            cluster.mend()

    def close(self) -> None:
        """Stops what nobody else needs."""
        for holding in self._holdings.values():
            holding.let_go()

        for holding in self._holdings.values():
            holding.close()


_services = pytest.StashKey[Services]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("rustmq").addoption(
        "--service",
        action="append",
        default=[],
        metavar="NAME=ADDRESS",
        help="use a server that runs already, and that tests may not kill: kafka=127.0.0.1:9092",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    foreign = dict(_named(text) for text in config.getoption("--service"))
    config.stash[_services] = Services(foreign)


def pytest_rustmq_services(config: pytest.Config) -> dict[str, str | None]:
    return config.stash[_services].missing


def pytest_itemcollected(item: pytest.Item) -> None:
    for fixture, service in FIXTURES.items():
        if fixture in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.service(service))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: any(True for _ in _marked(item)))


def pytest_collection_finish(session: pytest.Session) -> None:
    if session.config.option.collectonly:
        return

    services = session.config.stash[_services]
    for name in dict.fromkeys(name for item in session.items for name in _to_be_had(item)):
        services.begin(name)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Outside of the test's timeout: waits for its servers, and afterwards mends what it has broken."""
    services, needed = item.config.stash[_services], _to_be_had(item)
    for name in needed:
        try:
            services.wait(name)
        except ServiceFailed:
            # The setup says so, as a report of this test.
            break

    result = yield
    for name in needed:
        services.mend(name)

    return result


def pytest_runtest_setup(item: pytest.Item) -> None:
    for name in _to_be_had(item):
        _require(item.config, name)


def pytest_unconfigure(config: pytest.Config) -> None:
    # Which is not there if pytest was called with arguments that it refuses.
    if (services := config.stash.get(_services, None)) is not None:
        services.close()


@pytest.fixture(scope="session")
def kafka(request: pytest.FixtureRequest) -> KafkaServer:
    """A Kafka of one node, with all kinds of listeners."""
    return _require(request.config, "kafka").cluster("kafka")


@pytest.fixture(scope="session")
def kafka_cluster(request: pytest.FixtureRequest) -> KafkaServer:
    """A Kafka of three nodes, two of which have to have a message before it is acknowledged."""
    return _require(request.config, "kafka3").cluster("kafka3")


@pytest.fixture(scope="session")
def redis_url(request: pytest.FixtureRequest) -> str:
    """A Redis that has on the disk what it has answered."""
    return _require(request.config, "redis").variable("redis", "REDIS_URL")


@pytest.fixture(scope="session")
def nats_url(request: pytest.FixtureRequest) -> str:
    """A NATS with JetStream on files."""
    return _require(request.config, "nats").variable("nats", "NATS_URL")


def _require(config: pytest.Config, name: str) -> Services:
    """The services, this one among them; else the test is skipped or, with ``--require-services``, fails."""
    services = config.stash[_services]
    try:
        services.wait(name)
    except ServiceMissing as missing:
        if config.getoption("--require-services"):
            pytest.fail(f"needs {name}, and --require-services is given: {missing}", pytrace=False)

        pytest.skip(f"needs {name}: {missing}")
    except ServiceFailed as failure:
        pytest.fail(f"needs {name}: {failure}", pytrace=False)

    return services


def _to_be_had(item: pytest.Item) -> list[str]:
    """What a test needs that can be started here. Of the rest, rustmq_sdk's own plugin skips or fails the test."""
    missing = item.config.stash[_services].missing
    return [name for name in _marked(item) if name in CATALOGUE and missing[name] is None]


def _marked(item: pytest.Item) -> Iterator[str]:
    for marker in item.iter_markers("service"):
        yield from marker.args


def _named(text: str) -> tuple[str, str]:
    name, equals, address = text.partition("=")
    if not equals or name not in CATALOGUE:
        known = ", ".join(CATALOGUE)
        raise pytest.UsageError(f"--service takes NAME=ADDRESS with a name among {known}, not {text!r}")

    return name, address
