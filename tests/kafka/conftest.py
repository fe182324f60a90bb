"""What the tests on a real Kafka have in common."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rustmq_sdk.drivers.kafka import manual, missing
from tests.services.kafka_server import KafkaServer
from tests.services.proxy import Proxy


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """For topics and partitions that come and go: every five seconds otherwise."""
    for module in (manual, missing):
        monkeypatch.setattr(module, "LOOK_SECONDS", 0.5)


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
