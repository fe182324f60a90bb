"""What appends to a broker of the tests. These classes know asyncio only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from rustmq_sdk.drivers.kafka import patience
from rustmq_sdk.drivers.kafka.cluster import Cluster
from rustmq_sdk.drivers.kafka.options import KafkaOptions
from rustmq_sdk.drivers.kafka.settings import client_settings
from rustmq_sdk.drivers.kafka.sink import Appender
from tests.unit.kafka_broker import Broker


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(patience, "LONGEST_PAUSE", 0.01)


@asynccontextmanager
async def connected(broker: Broker, **options: object) -> AsyncIterator[Appender]:
    async with broker.serving() as server:
        read = KafkaOptions(servers=(server,), **options)  # type: ignore[arg-type]
        cluster = Cluster(client_settings(read))
        await cluster.open()

        async def make(name: str) -> None:
            broker.exists = True

        made = Appender(cluster, read, make, lambda: 1_700_000_000_000)
        try:
            yield made
        finally:
            await made.close()
            cluster.close()
