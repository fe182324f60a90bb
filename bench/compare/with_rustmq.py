"""rustmq_sdk, with everything on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio

import rustmq_sdk
from bench.children import say
from bench.compare.race import Gauge, Race, new_group
from bench.compare.with_aiokafka import Commits
from rustmq_sdk.drivers.kafka import bare as bare_path

MOST = 500
PATIENCE = 30.0

Program = Callable[[rustmq_sdk.Consumer, Race], Awaitable[None]]


def consume(
    address: str,
    topic: str,
    messages: int,
    size: int,
    parts: int,
    how: str,
    loop: str,
    thread: bool = False,
    bare: bool = True,
) -> dict[str, Any]:
    bare_path.POSSIBLE = bare and bare_path.POSSIBLE
    race, commits = Race(messages, size, parts), Commits()
    _run(loop, _consume, _url(address, thread=thread), topic, race, PROGRAMS[how])
    return race.found(commits.count)


def listen(
    address: str, topic: str, rate: int, seconds: float, how: str, loop: str, thread: bool = False
) -> dict[str, float]:
    gauge = Gauge(rate, seconds)
    _run(loop, _listen, _url(address, thread=thread), topic, gauge)
    return gauge.found()


def _run(loop: str, function: Callable[..., Awaitable[None]], *arguments: Any) -> None:
    if loop == "uvloop":
        anyio.run(function, *arguments, backend="asyncio", backend_options={"use_uvloop": True})
    else:
        anyio.run(function, *arguments, backend=loop)


def _url(address: str, *, thread: bool) -> str:
    return f"kafka://{address}?thread={'true' if thread else 'false'}"


async def _consume(url: str, topic: str, race: Race, program: Program) -> None:
    async with rustmq_sdk.Client(url) as client, client.consumer(topic, group=new_group()) as consumer:
        await (await consumer.receive(timeout=PATIENCE)).ack()
        await program(consumer, race)


async def _listen(url: str, topic: str, gauge: Gauge) -> None:
    async with rustmq_sdk.Client(url) as client, client.consumer(topic, group=new_group()) as consumer:
        await (await consumer.receive(timeout=PATIENCE)).ack()
        say("ready")
        done = False
        while not done:
            message = await consumer.receive()
            done = gauge.take(message.payload)
            await message.ack()


async def one_by_one(consumer: rustmq_sdk.Consumer, race: Race) -> None:
    received = size = 0
    for goal in race.goals():
        while received < goal:
            message = await consumer.receive()
            received += 1
            size += len(message.payload or b"")
            await message.ack()

    await consumer.commit()
    race.stop(received, size)


async def in_batches(consumer: rustmq_sdk.Consumer, race: Race) -> None:
    received = size = 0
    for goal in race.goals():
        while received < goal:
            batch = await consumer.receive_batch(MOST)
            received += len(batch)
            for message in batch:
                size += len(message.payload or b"")

            await batch.ack()

    await consumer.commit()
    race.stop(received, size)


async def with_handler(consumer: rustmq_sdk.Consumer, race: Race) -> None:
    received = size = 0
    goals = race.goals()
    goal = next(goals)

    async def handle(message: rustmq_sdk.Message) -> None:
        nonlocal received, size, goal
        received += 1
        size += len(message.payload or b"")
        if received == goal and (goal := next(goals, 0)) == 0:
            consumer.stop()

    await consumer.run(handle)
    await consumer.commit()
    race.stop(received, size)


PROGRAMS: dict[str, Program] = {
    "receive(), ack()": one_by_one,
    "receive_batch(500)": in_batches,
    "run()": with_handler,
}
