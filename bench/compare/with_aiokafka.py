"""aiokafka, by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.commit import OffsetCommitRequest

from bench.children import say
from bench.compare.race import Gauge, Race, new_group

MOST = 500


class Commits:
    """Counts the commits that aiokafka sends in this process, whoever uses it."""

    def __init__(self) -> None:
        self.count = 0
        send = AIOKafkaClient.send

        async def counted(client: AIOKafkaClient, node_id: int, request: Any, **options: Any) -> Any:
            self.count += isinstance(request, OffsetCommitRequest)
            return await send(client, node_id, request, **options)

        AIOKafkaClient.send = counted


def consume(
    address: str, topic: str, messages: int, size: int, parts: int, how: str, commit_every: int
) -> dict[str, Any]:
    race, commits = Race(messages, size, parts), Commits()
    asyncio.run(_consume(address, topic, race, how, commit_every))
    return race.found(commits.count)


def listen(address: str, topic: str, rate: int, seconds: float, how: str, commit_every: int) -> dict[str, float]:
    return asyncio.run(_listen(address, topic, Gauge(rate, seconds), commit_every))


async def _consume(address: str, topic: str, race: Race, how: str, commit_every: int) -> None:
    async with _joined(address, topic) as consumer:
        await (_getmany if how == "getmany" else _getone)(consumer, race, commit_every)


async def _getmany(consumer: AIOKafkaConsumer, race: Race, commit_every: int) -> None:
    received = committed = size = 0
    for goal in race.goals():
        while received < goal:
            for records in (await consumer.getmany(timeout_ms=1000, max_records=MOST)).values():
                received += len(records)
                for record in records:
                    size += len(record.value)

            if received - committed >= commit_every:
                await consumer.commit()
                committed = received

    await consumer.commit()
    race.stop(received, size)


async def _getone(consumer: AIOKafkaConsumer, race: Race, commit_every: int) -> None:
    received = size = 0
    for goal in race.goals():
        while received < goal:
            record = await consumer.getone()
            received += 1
            size += len(record.value)
            if received % commit_every == 0:
                await consumer.commit()

    await consumer.commit()
    race.stop(received, size)


async def _listen(address: str, topic: str, gauge: Gauge, commit_every: int) -> dict[str, float]:
    async with _joined(address, topic) as consumer:
        say("ready")
        received = committed = 0
        done = False
        while not done:
            for records in (await consumer.getmany(timeout_ms=1000, max_records=MOST)).values():
                received += len(records)
                for record in records:
                    done = gauge.take(record.value)

            if received - committed >= commit_every:
                await consumer.commit()
                committed = received

    return gauge.found()


@asynccontextmanager
async def _joined(address: str, topic: str) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer that has had its first message."""
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=address,
        group_id=new_group(),
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    await consumer.start()
    try:
        await consumer.getone()
        yield consumer
    finally:
        await consumer.stop()
