"""A producer on the bench: a memory sink behind a wire that the test may break, and what can go wrong on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from random import Random
from typing import Any

import anyio
import pytest

from rustmq_sdk import (
    OutcomeUnknown,
    OutgoingMessage,
    PermanentDriverError,
    Producer,
    ProducerConfig,
    SentMessage,
    TransientDriverError,
)
from rustmq_sdk.drivers.memory.driver import MemoryDriver
from rustmq_sdk.errors import NotAllStored
from rustmq_sdk.slots import Sink
from rustmq_sdk.values import ProducerSequence

Fault = Callable[[Callable[[], Any]], Any]


async def refuse(append: Callable[[], Any]) -> Any:
    """Nothing is stored, and the sink says so."""
    raise TransientDriverError("refused", slot="sink", operation="append")


async def lose_the_answer(append: Callable[[], Any]) -> Any:
    """It is stored, and nobody hears of it."""
    await append()
    raise OutcomeUnknown("the connection broke")


async def hang(append: Callable[[], Any]) -> Any:
    """Nothing is stored and nothing is said."""
    await anyio.sleep_forever()


async def store_and_hang(append: Callable[[], Any]) -> Any:
    """It is stored, and the answer never comes."""
    await append()
    await anyio.sleep_forever()


async def forbid(append: Callable[[], Any]) -> Any:
    """It will never be stored."""
    raise PermanentDriverError("too large", slot="sink", operation="append")


def store_all_but(*refused: int) -> Fault:
    """Those at these places will never be stored; the others are."""

    async def fault(append: Callable[[], Any]) -> Any:
        sent: list[SentMessage | None] = list(await append())
        for place in refused:
            sent[place] = None

        reasons = {place: PermanentDriverError(f"{place} is bad", slot="sink", operation="append") for place in refused}
        raise NotAllStored(reasons, sent, slot="sink", operation="append")

    return fault


class Wire:
    """A memory sink behind a wire: appends take time, faults happen, and what happens is written down."""

    def __init__(self, sink: Sink, seconds: float = 0.0) -> None:
        self.sink = sink
        self.seconds = seconds
        self.faults: dict[tuple[str, int], list[Fault]] = {}
        self.always: Fault | None = None
        self.asking: list[Exception | float] = []
        self.asked: list[str] = []
        self.appends: list[tuple[int, list[bytes | None], ProducerSequence | None]] = []
        self.in_flight: set[tuple[str, int]] = set()
        self.most_at_once = 0

    async def partitions(self, topic: str) -> int:
        self.asked.append(topic)
        fault = self.asking.pop(0) if self.asking else 0.0
        if isinstance(fault, Exception):
            raise fault

        await anyio.sleep(fault)
        return await self.sink.partitions(topic)

    async def append(
        self,
        topic: str,
        partition: int,
        messages: Sequence[OutgoingMessage],
        *,
        sequence: ProducerSequence | None,
    ) -> Sequence[SentMessage]:
        place = (topic, partition)
        assert place not in self.in_flight, "two appends to one partition at once"
        self.in_flight.add(place)
        self.most_at_once = max(self.most_at_once, len(self.in_flight))
        self.appends.append((partition, [message.payload for message in messages], sequence))
        try:
            await anyio.sleep(self.seconds)
            queued = self.faults.get(place)
            fault = queued.pop(0) if queued else self.always

            async def append() -> Sequence[SentMessage]:
                return await self.sink.append(topic, partition, messages, sequence=sequence)

            return await (append() if fault is None else fault(append))
        finally:
            self.in_flight.discard(place)

    def fail(self, *faults: Fault, topic: str = "t", partition: int = 0) -> None:
        self.faults[topic, partition] = list(faults)


class Bench:
    """A driver, its topic ``t``, and the wire to it."""

    def __init__(self, driver: MemoryDriver) -> None:
        self.driver = driver
        self.wire = Wire(driver.sink())

    async def create(self, partitions: int, topic: str = "t") -> None:
        await self.driver.admin().create_topic(topic, partitions, {})

    def producer(self, *, idempotent: bool = True, append_messages: int = 0, **settings: Any) -> Producer:
        return Producer(
            self.wire,
            config=ProducerConfig(**settings),
            idempotent=idempotent,
            append_messages=append_messages,
            rng=Random(7),
        )

    def stored(self, topic: str = "t", partition: int = 0) -> list[str]:
        log = self.driver.broker.logs(topic, slot="source", operation="read")[partition]
        return [(entry[0] or b"").decode() for entry in log._entries]  # type: ignore[union-attr]


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with MemoryDriver() as driver:
        bench = Bench(driver)
        await bench.create(1)
        yield bench
