"""What the runtime itself costs: the in-memory driver, every feature on, 100-byte messages, four partitions.

The bare loop builds the same messages from the same records in batches of 500 and looks at each one.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any

import anyio
import pytest

import rustmq_sdk
from rustmq_sdk.config import Ordering
from rustmq_sdk.drivers.memory.log import build
from rustmq_sdk.values import OutgoingMessage

MESSAGES = 200_000
PARTITIONS = 4
BATCH = 500
KEYS = 1_000
WINDOW = 100_000
URL = "memory://bench"

groups = count()


@pytest.fixture(scope="module")
def records() -> list[list[Any]]:
    """Fills the topic once, and gives the same records to the bare loops."""

    async def fill() -> None:
        async with rustmq_sdk.Client(URL) as client, client.producer() as producer:
            await client.create_topic("bench", PARTITIONS)
            for start in range(0, MESSAGES, BATCH):
                keys = (b"%d" % (number * 7919 % KEYS) for number in range(start, start + BATCH))
                partition = start // BATCH % PARTITIONS
                await producer.send_batch(
                    "bench", [OutgoingMessage(b"x" * 100, key, partition=partition) for key in keys]
                )

    anyio.run(fill)
    return [
        [(b"x" * 100, b"%d" % (number * 7919 % KEYS), (), number, 0) for number in range(start, start + BATCH)]
        for start in range(0, MESSAGES, BATCH)
    ]


async def consume(program: Callable[[rustmq_sdk.Consumer], Awaitable[None]], **options: Any) -> None:
    """Runs a program over all messages with a fresh group."""
    async with (
        rustmq_sdk.Client(URL) as client,
        client.consumer("bench", group=f"g{next(groups)}", **options) as consumer,
    ):
        await program(consumer)


async def receive_and_ack(consumer: rustmq_sdk.Consumer) -> None:
    for _ in range(MESSAGES):
        message = await consumer.receive()
        await message.ack()


async def iterate(consumer: rustmq_sdk.Consumer) -> None:
    left = MESSAGES
    async for message in consumer:
        await message.ack()
        left -= 1
        if not left:
            break


async def whole_batches(consumer: rustmq_sdk.Consumer) -> None:
    left = MESSAGES
    while left:
        batch = await consumer.receive_batch(BATCH)
        await batch.ack()
        left -= len(batch)


def handled(ordering: Ordering) -> Callable[[rustmq_sdk.Consumer], Awaitable[None]]:
    async def program(consumer: rustmq_sdk.Consumer) -> None:
        left = MESSAGES

        async def handle(message: rustmq_sdk.Message) -> None:
            nonlocal left
            left -= 1
            if not left:
                consumer.stop()

        await consumer.run(handle, ordering=ordering)

    return program


def test_bare_loop(measure: Any, records: Any) -> None:
    async def program() -> None:
        for batch in records:
            for message in build(batch, None, 0):  # type: ignore[arg-type]
                assert message

    measure(program, MESSAGES, table="hot path", bare=True)


def test_receive_and_ack(measure: Any, records: Any) -> None:
    measure(lambda: consume(receive_and_ack), MESSAGES, table="hot path", goal="<= 3.3")


def test_async_for_and_ack(measure: Any, records: Any) -> None:
    measure(lambda: consume(iterate), MESSAGES, table="hot path")


def test_receive_batch_of_500_and_ack(measure: Any, records: Any) -> None:
    measure(lambda: consume(whole_batches), MESSAGES, table="hot path", goal=">= 4 M/s")


def test_run(measure: Any, records: Any) -> None:
    measure(lambda: consume(handled("none")), MESSAGES, table="hot path")


def test_per_message_anyio_streams(measure: Any, records: Any) -> None:
    """The same from textbook parts: a stream of messages, a stream of acks back, a set for the watermark."""
    some = MESSAGES // 10
    measure(lambda: streams(records, some), some, table="hot path", goal=">= 25 x receive and ack")


def test_run_unordered(measure: Any, records: Any) -> None:
    measure(lambda: consume(handled("none")), MESSAGES, table="order", bare=True)


def test_run_in_key_order(measure: Any, records: Any) -> None:
    measure(lambda: consume(handled("key")), MESSAGES, table="order", goal="<= 1.5")


def test_run_in_partition_order(measure: Any, records: Any) -> None:
    measure(lambda: consume(handled("partition")), MESSAGES, table="order")


def test_bare_random_access(measure: Any, records: Any) -> None:
    async def program() -> None:
        held: list[rustmq_sdk.Message] = []
        rng = random.Random(1)
        for batch in records:
            state = bytearray(len(batch))
            for message in build(batch, state, 0):  # type: ignore[arg-type]
                held.append(message)
                if len(held) > WINDOW:
                    chosen = take_random(held, rng)
                    chosen._piece[chosen._index] = 1

    measure(program, MESSAGES, table="100,000 in flight, acked at random", bare=True)


def test_receive_and_ack_at_random(measure: Any, records: Any) -> None:
    async def program(consumer: rustmq_sdk.Consumer) -> None:
        held: list[rustmq_sdk.Message] = []
        rng = random.Random(1)
        for _ in range(MESSAGES):
            held.append(await consumer.receive())
            if len(held) > WINDOW:
                await take_random(held, rng).ack()

    big = 10 * MESSAGES
    options = {"max_in_flight": WINDOW + 2000, "max_span": big, "max_uncommitted": big}
    measure(lambda: consume(program, **options), MESSAGES, table="100,000 in flight, acked at random", goal="<= 1.6")


def take_random(held: list[rustmq_sdk.Message], rng: random.Random) -> rustmq_sdk.Message:
    """Removes a random one at the cost of a swap."""
    index = rng.randrange(len(held))
    held[index], held[-1] = held[-1], held[index]
    return held.pop()


async def streams(records: Any, messages: int) -> None:
    """What is commonly written by hand."""
    send, receive = anyio.create_memory_object_stream[Any](1000)
    tell, told = anyio.create_memory_object_stream[int](1000)

    async def fetch() -> None:
        for batch in records[: messages // BATCH]:
            for message in build(batch, None, 0):  # type: ignore[arg-type]
                await send.send(message)

    async def settle() -> None:
        done: set[int] = set()
        watermark = 0
        for _ in range(messages):
            done.add(await told.receive())
            while watermark in done:
                done.remove(watermark)
                watermark += 1

    async with send, receive, tell, told, anyio.create_task_group() as group:
        group.start_soon(fetch)
        group.start_soon(settle)
        for _ in range(messages):
            message = await receive.receive()
            await tell.send(message.offset)
