"""A source that lives on an island keeps every promise of the slots, from asyncio and from trio.

The in-memory driver knows any loop: here it lives on an asyncio loop in a thread, in real time, and all of it is used
from there, as an asyncio-only client would be.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, TypeVar

import pytest

from rustmq_sdk._asyncio_island import Island, across
from rustmq_sdk.drivers.memory import MemoryDriver
from rustmq_sdk.drivers.memory import open as open_memory
from rustmq_sdk.slots import Admin, Capabilities, DeadLetterQueue, Driver, Sink, Source, SourceRequest, StateStore
from rustmq_sdk.testing.contracts import LogSourceContract, QueueSourceContract
from rustmq_sdk.values import OutgoingMessage, ProducerSequence, SentMessage, TopicPartition

T = TypeVar("T")


class IslandDriver:
    """The in-memory driver, as a driver for an asyncio-only client is put together."""

    def __init__(self, memory: MemoryDriver) -> None:
        self.memory = memory
        self.island = Island("island of the contract", thread=True)

    @property
    def capabilities(self) -> Capabilities:
        return self.memory.capabilities

    async def __aenter__(self) -> IslandDriver:
        await self.island.__aenter__()
        await self.island.run(self.memory.__aenter__)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.island.run(self.memory.__aexit__)
        await self.island.__aexit__()

    def source(self, request: SourceRequest) -> Source:
        return across(self.memory.source(request), self.island)

    def sink(self) -> Sink:
        return IslandSink(self.memory.sink(), self.island)

    def admin(self) -> Admin:
        return IslandAdmin(self.memory.admin(), self.island)

    def state_store(self, name: str) -> StateStore:
        raise NotImplementedError

    def dead_letters(self, topic: str) -> DeadLetterQueue:
        raise NotImplementedError


class IslandSink:
    def __init__(self, sink: Sink, island: Island) -> None:
        self._sink = sink
        self._island = island

    async def partitions(self, topic: str) -> int:
        return await self._island.run(self._sink.partitions, topic)

    async def append(
        self, topic: str, partition: int, messages: Sequence[OutgoingMessage], *, sequence: ProducerSequence | None
    ) -> Sequence[SentMessage]:
        append = partial(self._sink.append, sequence=sequence)
        return await self._island.run(append, topic, partition, messages)


class IslandAdmin:
    def __init__(self, admin: Admin, island: Island) -> None:
        self._admin = admin
        self._island = island

    async def create_topic(self, name: str, partitions: int, settings: Mapping[str, Any]) -> None:
        await self._island.run(self._admin.create_topic, name, partitions, settings)

    async def delete_topic(self, name: str) -> None:
        await self._island.run(self._admin.delete_topic, name)

    async def topics(self) -> Mapping[str, int]:
        return await self._island.run(self._admin.topics)


class OnIsland:
    """Where the suites get their driver, and how they reach its broker."""

    options: ClassVar[dict[str, str]] = {}

    @pytest.fixture
    async def driver(self) -> AsyncIterator[Driver]:
        async with IslandDriver(open_memory("memory://", self.options)) as driver:
            yield driver

    def post(self, driver: Driver, call: Callable[[MemoryDriver], object]) -> None:
        """What is called afterwards crosses afterwards, and finds it done."""
        assert isinstance(driver, IslandDriver)
        driver.island.post(partial(call, driver.memory))


class TestLog(OnIsland, LogSourceContract):
    cooperative = True

    def truncate(self, driver: Driver, tp: TopicPartition, before: int) -> None:
        self.post(driver, lambda memory: memory.broker.truncate(tp.topic, tp.partition or 0, before))

    def leave_a_gap(self, driver: Driver, tp: TopicPartition) -> None:
        self.post(driver, lambda memory: memory.broker.skip(tp.topic, tp.partition or 0, 3))

    def append_broken(self, driver: Driver, tp: TopicPartition, raw: bytes) -> None:
        self.post(driver, lambda memory: memory.broker.append_broken(tp.topic, tp.partition or 0, raw))

    async def expire(self, driver: Driver, group: str) -> None:
        self.post(driver, lambda memory: memory.broker.expire(group))

    async def rebalance(self, driver: Driver, group: str) -> None:
        self.post(driver, lambda memory: memory.broker.rebalance(group))


class TestLesserLog(TestLog):
    options: ClassVar = {"without": "seek,offsets_at,read,dense_offsets,fences", "checkpoint_room": "100"}


class TestQueue(OnIsland, QueueSourceContract):
    options: ClassVar = {"kind": "queue"}
    lease = 0.5
