"""The in-memory driver keeps every promise of the slots, in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import ClassVar

import pytest

from rustmq_sdk.drivers.memory import MemoryDriver
from rustmq_sdk.drivers.memory import open as open_memory
from rustmq_sdk.slots import Driver
from rustmq_sdk.testing.contracts import (
    AdminContract,
    DeadLetterQueueContract,
    LogSourceContract,
    QueueSourceContract,
    SinkContract,
    StateStoreContract,
)
from rustmq_sdk.values import DeadLetter, TopicPartition

pytestmark = pytest.mark.virtual_time


def memory(driver: Driver) -> MemoryDriver:
    assert isinstance(driver, MemoryDriver)
    return driver


class OnMemory:
    """Where the suites get their driver."""

    options: ClassVar[str] = ""

    @pytest.fixture
    async def driver(self) -> AsyncIterator[Driver]:
        async with open_memory(f"memory://?{self.options}") as driver:
            yield driver


class TestLog(OnMemory, LogSourceContract):
    cooperative = True

    def truncate(self, driver: Driver, tp: TopicPartition, before: int) -> None:
        memory(driver).broker.truncate(tp.topic, tp.partition or 0, before)

    def leave_a_gap(self, driver: Driver, tp: TopicPartition) -> None:
        memory(driver).broker.skip(tp.topic, tp.partition or 0, 3)

    def append_broken(self, driver: Driver, tp: TopicPartition, raw: bytes) -> None:
        memory(driver).broker.append_broken(tp.topic, tp.partition or 0, raw)

    async def expire(self, driver: Driver, group: str) -> None:
        memory(driver).broker.expire(group)

    async def rebalance(self, driver: Driver, group: str) -> None:
        memory(driver).broker.rebalance(group)


class TestLesserLog(TestLog):
    options: ClassVar[str] = (
        "without=seek,offsets_at,read,dense_offsets,idempotent_append,dedup_letters,fences&checkpoint_room=100"
    )


class TestQueue(OnMemory, QueueSourceContract):
    options: ClassVar[str] = "kind=queue"


class TestLesserQueue(OnMemory, QueueSourceContract):
    options: ClassVar[str] = "kind=queue&without=counts_attempts,delayed_nack"


class TestSink(OnMemory, SinkContract):
    pass


class TestLesserSink(OnMemory, SinkContract):
    options: ClassVar[str] = "without=idempotent_append"


class TestQueueSink(OnMemory, SinkContract):
    options: ClassVar[str] = "kind=queue"


class TestStateStore(OnMemory, StateStoreContract):
    pass


class TestDeadLetters(OnMemory, DeadLetterQueueContract):
    async def stored(self, driver: Driver, topic: str) -> Sequence[DeadLetter]:
        return memory(driver).broker.letters[topic].letters


class TestRepeatedDeadLetters(TestDeadLetters):
    options: ClassVar[str] = "without=dedup_letters"


class TestAdmin(OnMemory, AdminContract):
    pass


class TestQueueAdmin(OnMemory, AdminContract):
    options: ClassVar[str] = "kind=queue"
