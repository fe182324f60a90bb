"""A source that lives on an island keeps every promise of the slots, from asyncio and from trio.

The in-memory driver knows any loop: here it lives on an asyncio loop in a thread, in real time, and all of it is used
from there, as an asyncio-only client would be.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, ClassVar, TypeVar

import anyio
import pytest

from rustmq_sdk import Client, Message
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

    options: ClassVar[str] = ""

    @pytest.fixture
    async def driver(self) -> AsyncIterator[Driver]:
        async with IslandDriver(open_memory(f"memory://?{self.options}")) as driver:
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
    options: ClassVar[str] = "without=seek,offsets_at,read,dense_offsets,fences&checkpoint_room=100"


class TestQueue(OnIsland, QueueSourceContract):
    options: ClassVar[str] = "kind=queue"
    lease = 0.5


# The runtime as the judge


@asynccontextmanager
async def client() -> AsyncIterator[Client]:
    """A client like any other, but its driver lives on an island."""
    client = Client("memory://")
    client._driver = IslandDriver(open_memory("memory://"))
    async with client:
        yield client


async def test_consumers_that_come_and_go_handle_every_message() -> None:
    handled: set[bytes | None] = set()
    enough = anyio.Event()

    async def handle(message: Message) -> None:
        handled.add(message.payload)
        await anyio.lowlevel.checkpoint()
        if len(handled) >= 600:
            enough.set()

    async def consume(a_client: Client, leave_after: int) -> None:
        async with a_client.consumer("t", group="g", prefetch=20) as consumer:
            count = 0
            async for message in consumer:
                await handle(message)
                await message.ack()
                count += 1
                if count == leave_after:
                    return

    async with client() as a_client:
        await a_client.create_topic("t", 4)
        async with a_client.producer() as producer:
            await producer.send_batch("t", [b"%d" % number for number in range(600)])

        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                for leave_after in (50, 100, 10_000):
                    tasks.start_soon(consume, a_client, leave_after)

                await enough.wait()
                tasks.cancel_scope.cancel()

    assert handled == {b"%d" % number for number in range(600)}


async def test_a_consumer_seeks_and_reads_on_from_there() -> None:
    async with client() as a_client:
        await a_client.create_topic("t", 1)
        async with a_client.producer() as producer:
            await producer.send_batch("t", [b"%d" % number for number in range(100)])

        with anyio.fail_after(20):
            async with a_client.consumer("t", group="g") as consumer:
                await consumer.receive()
                for offset in (90, 3, 50, 99, 0):
                    await consumer.seek("t", 0, offset)
                    message = await consumer.receive()
                    assert message.offset == offset
                    await message.ack()

                await consumer.commit()
                assert await consumer.committed_offset("t", 0) == 1


async def test_handlers_that_block_the_users_loop_do_not_keep_the_client_from_its_work() -> None:
    async with client() as a_client:
        driver = a_client._driver
        assert isinstance(driver, IslandDriver)
        await a_client.create_topic("t", 1)
        async with a_client.producer() as producer:
            await producer.send("t", b"heavy")

        beats = threading.Semaphore(0)

        async def beat() -> None:
            while True:
                await asyncio.sleep(0.001)
                beats.release()

        async with anyio.create_task_group() as tasks, a_client.consumer("t", group="g") as consumer:
            tasks.start_soon(driver.island.run, beat)
            message = await consumer.receive()
            for _ in range(100):
                assert beats.acquire(timeout=10), "this blocks the user's loop"

            await message.ack(durable=True)
            tasks.cancel_scope.cancel()
