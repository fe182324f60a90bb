"""What the tests on a real Kafka have in common."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from rustmq_sdk.drivers.kafka import manual, missing
from rustmq_sdk.drivers.kafka.options import KafkaOptions
from rustmq_sdk.drivers.kafka.timing import Timing
from rustmq_sdk.slots import SourceRequest
from tests.services.kafka_server import KafkaServer
from tests.services.proxy import Proxy


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """For topics and partitions that come and go: every five seconds otherwise."""
    for module in (manual, missing):
        monkeypatch.setattr(module, "LOOK_SECONDS", 0.5)


@pytest.fixture(autouse=True)
def _beats_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Members hear of a rebalance with a heartbeat: every three seconds otherwise, with the lease of these tests."""
    of = Timing.of

    def often(options: KafkaOptions, request: SourceRequest) -> Timing:
        timing = of(options, request)
        return replace(timing, heartbeat=min(timing.heartbeat, 0.6))

    monkeypatch.setattr(Timing, "of", often)


@pytest.fixture
def network(kafka: KafkaServer) -> Iterator[Proxy]:
    """The way to ``kafka``, to be cut."""
    with Proxy(kafka.bootstrap) as proxy:
        yield proxy


@pytest.fixture
def cluster_network(kafka_cluster: KafkaServer) -> Iterator[Proxy]:
    """The ways to the three nodes of ``kafka_cluster``."""
    with Proxy(kafka_cluster.bootstrap) as proxy:
        yield proxy
