"""FastStream over aiokafka."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from faststream import AckPolicy
from faststream.kafka import KafkaBroker, KafkaMessage

from bench.children import say
from bench.compare.race import Gauge, Race, new_group
from bench.compare.with_aiokafka import Commits

MOST = 500
PATIENCE = 300.0


def consume(
    address: str, topic: str, messages: int, size: int, parts: int, policy: str, batch: bool = False
) -> dict[str, Any]:
    race, commits = Race(messages, size, parts), Commits()
    tally = _Tally(race)
    asyncio.run(_run(address, topic, policy, tally.batch if batch else tally.one, tally.done, batch=batch))
    return race.found(commits.count)


def listen(address: str, topic: str, rate: int, seconds: float, policy: str) -> dict[str, float]:
    gauge = Gauge(rate, seconds)
    asyncio.run(_listen(address, topic, policy, gauge))
    return gauge.found()


class _Tally:
    """Counts what comes. The first call only begins."""

    def __init__(self, race: Race) -> None:
        self.done = asyncio.Event()
        self._race = race
        self._received = self._size = 0
        self._begun = False

    def one(self, body: bytes) -> None:
        self._take(1, len(body))

    def batch(self, bodies: list[bytes]) -> None:
        self._take(len(bodies), sum(map(len, bodies)))

    def _take(self, count: int, size: int) -> None:
        if self.done.is_set():
            return

        if not self._begun:
            self._begun = True
            self._race.begin()
            return

        self._received += count
        self._size += size
        if self._received >= self._race.messages:
            self._race.stop(self._received, self._size)
            self.done.set()


async def _listen(address: str, topic: str, policy: str, gauge: Gauge) -> None:
    done = asyncio.Event()
    begun = False

    def take(body: bytes) -> None:
        nonlocal begun
        if not begun:
            begun = True
            say("ready")
        elif gauge.take(body):
            done.set()

    await _run(address, topic, policy, take, done)


async def _run(
    address: str, topic: str, policy: str, take: Callable[[Any], None], done: asyncio.Event, *, batch: bool = False
) -> None:
    broker = KafkaBroker(address, logger=None, log_level=logging.CRITICAL)
    subscriber: Any = broker.subscriber(
        topic,
        group_id=new_group(),
        auto_offset_reset="earliest",
        ack_policy=AckPolicy(policy),
        decoder=_as_it_is,
        **({"batch": True, "max_records": MOST} if batch else {}),
    )
    subscriber(_handler(take, policy=policy, batch=batch))
    await broker.start()
    try:
        await asyncio.wait_for(done.wait(), PATIENCE)
    finally:
        await broker.stop()


def _handler(take: Callable[[Any], None], *, policy: str, batch: bool) -> Callable[..., Any]:
    if policy == "manual":

        async def manual(body: bytes, message: KafkaMessage) -> None:
            take(body)
            await message.ack()

        return manual

    if batch:

        async def batches(body: list[bytes]) -> None:
            take(body)

        return batches

    async def one(body: bytes) -> None:
        take(body)

    return one


async def _as_it_is(message: Any) -> Any:
    return message.body
