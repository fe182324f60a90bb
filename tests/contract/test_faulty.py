"""A faulty driver without a fault keeps every promise of the driver inside it: it adds nothing by itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import ClassVar

import pytest

from rustmq_sdk.drivers.memory import open as open_memory
from rustmq_sdk.slots import Driver
from rustmq_sdk.testing import FaultPlan, FaultyDriver
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


class Faultless:
    """Where the suites get their driver."""

    options: ClassVar[str] = ""

    @pytest.fixture
    async def driver(self) -> AsyncIterator[Driver]:
        self.memory = open_memory(f"memory://?{self.options}")
        async with FaultyDriver(self.memory, FaultPlan()) as driver:
            yield driver


class TestLog(Faultless, LogSourceContract):
    cooperative = True

    def truncate(self, driver: Driver, tp: TopicPartition, before: int) -> None:
        self.memory.broker.truncate(tp.topic, tp.partition or 0, before)

    def leave_a_gap(self, driver: Driver, tp: TopicPartition) -> None:
        self.memory.broker.skip(tp.topic, tp.partition or 0)

    def append_broken(self, driver: Driver, tp: TopicPartition, raw: bytes) -> None:
        self.memory.broker.append_broken(tp.topic, tp.partition or 0, raw)

    async def expire(self, driver: Driver, group: str) -> None:
        self.memory.broker.expire(group)

    async def rebalance(self, driver: Driver, group: str) -> None:
        self.memory.broker.rebalance(group)


class TestQueue(Faultless, QueueSourceContract):
    options: ClassVar[str] = "kind=queue"


class TestSink(Faultless, SinkContract):
    pass


class TestStateStore(Faultless, StateStoreContract):
    pass


class TestAdmin(Faultless, AdminContract):
    pass


class TestDeadLetters(Faultless, DeadLetterQueueContract):
    async def stored(self, driver: Driver, topic: str) -> Sequence[DeadLetter]:
        return self.memory.broker.letters[topic].letters
