"""What the URL scheme ``kafka://`` names."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import NamedTuple

import anyio

from rustmq_sdk._asyncio_island import Island, across
from rustmq_sdk.drivers.kafka.admin import KafkaAdmin, TopicAdmin
from rustmq_sdk.drivers.kafka.cluster import Cluster
from rustmq_sdk.drivers.kafka.dead_letters import KafkaDeadLetters
from rustmq_sdk.drivers.kafka.options import KafkaOptions
from rustmq_sdk.drivers.kafka.settings import client_settings
from rustmq_sdk.drivers.kafka.sink import Appender, KafkaSink
from rustmq_sdk.drivers.kafka.source import KafkaSource, capabilities
from rustmq_sdk.errors import ConsumerStateError, Unsupported
from rustmq_sdk.slots import Capabilities, Driver, Source, SourceRequest, StateStore

CLOSE = 5.0
"""Seconds for closing the connections. It asks nobody for anything and takes milliseconds."""


def _wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000


class _Open(NamedTuple):
    """What there is between entering and leaving."""

    island: Island
    cluster: Cluster
    topics: TopicAdmin
    appender: Appender
    leave: AsyncExitStack


class KafkaDriver:
    """A Kafka cluster.

    Args:
        options: see :class:`KafkaOptions`.
        wall_clock_ms: milliseconds since the epoch; stamps messages.
    """

    def __init__(self, options: KafkaOptions, *, wall_clock_ms: Callable[[], int] = _wall_clock_ms) -> None:
        self._options = options
        self._wall_clock_ms = wall_clock_ms
        self._open: _Open | None = None

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""
        return capabilities(self._options)

    async def __aenter__(self) -> KafkaDriver:
        """Finds the brokers.

        Raises:
            ConfigurationError: a file that the options name cannot be used.
            AuthenticationFailed: the brokers do not take user, password or certificate.
            PermanentDriverError: we do not trust their certificate.
            TransientDriverError: none of the servers can be reached.
        """
        if self._open is None:
            self._open = await self._enter()

        return self

    async def __aexit__(self, *exc_info: object) -> None:
        was_open, self._open = self._open, None
        if was_open is not None:
            await was_open.leave.aclose()

    def source(self, request: SourceRequest) -> Source:
        opened = self._opened()

        async def create(names: list[str]) -> None:
            for name in names:
                await opened.topics.make(name)

        return across(KafkaSource(self._options, request, create), opened.island)

    def sink(self) -> KafkaSink:
        opened = self._opened()
        return KafkaSink(opened.island, opened.appender)

    def admin(self) -> KafkaAdmin:
        opened = self._opened()
        return KafkaAdmin(opened.island, opened.topics, self._options.replication_factor)

    def state_store(self, name: str) -> StateStore:
        """Raises ``Unsupported``: Kafka compares and sets nothing."""
        raise Unsupported(f"kafka has no state store for {name!r}: use one of sqlite, for example")

    def dead_letters(self, topic: str) -> KafkaDeadLetters:
        opened = self._opened()
        return KafkaDeadLetters(opened.island, opened.appender, topic, self._options.dialects)

    async def _enter(self) -> _Open:
        settings = client_settings(self._options)
        async with AsyncExitStack() as stack:
            island = await stack.enter_async_context(Island("rustmq-kafka", thread=self._options.thread))
            cluster = Cluster(settings)
            topics = TopicAdmin(cluster, self._options)
            appender = Appender(cluster, self._options, topics.make, self._wall_clock_ms)

            stack.push_async_callback(_close, island, topics, appender, cluster)
            await island.run(cluster.open)
            return _Open(island, cluster, topics, appender, stack.pop_all())

    def _opened(self) -> _Open:
        if self._open is None:
            servers = ", ".join(self._options.servers)
            raise ConsumerStateError(f"not connected to {servers}: use the client as an async context manager")

        return self._open

    def __repr__(self) -> str:
        return f"<KafkaDriver {', '.join(self._options.servers)}>"


async def _close(island: Island, topics: TopicAdmin, appender: Appender, cluster: Cluster) -> None:
    async def close() -> None:
        topics.close()
        try:
            await appender.close()
        finally:
            cluster.close()

    # Also when it is cancelled: connections that are left open are warned of when they are collected.
    with anyio.move_on_after(CLOSE, shield=True):
        await island.run(close)


def _conforms(driver: KafkaDriver) -> Driver:
    return driver
