"""The process in which messages of many partitions are received."""

from __future__ import annotations

import gc
from time import perf_counter, process_time
from uuid import uuid4

import anyio

import rustmq_sdk
from rustmq_sdk.values import OutgoingMessage

TOPIC = "bench"
BATCH = 100


def measure(url: str, partitions: int, messages: int, loop: str, fill: bool) -> dict[str, float]:
    """Fills the topic if it has to, and receives all of it in a new group."""
    return anyio.run(_measure, url, partitions, messages, fill, backend=loop)


async def _measure(url: str, partitions: int, messages: int, fill: bool) -> dict[str, float]:
    async with rustmq_sdk.Client(url) as client:
        await client.create_topic(TOPIC, partitions)
        if fill:
            await _fill(client, partitions, messages)

        gc.collect()
        # What was built before is not what is measured.
        gc.freeze()
        entered = perf_counter()
        async with client.consumer(TOPIC, group=uuid4().hex) as consumer:
            await (await consumer.receive()).ack()
            began, cpu = perf_counter(), process_time()
            for _ in range(messages - 1):
                message = await consumer.receive()
                await message.ack()

            took, cpu = perf_counter() - began, process_time() - cpu

    each = 1e9 / (messages - 1)
    return {"ns": took * each, "cpu": cpu * each, "joined": (began - entered) * 1e3}


async def _fill(client: rustmq_sdk.Client, partitions: int, messages: int) -> None:
    async with client.producer() as producer:
        for number, start in enumerate(range(0, messages, BATCH)):
            batch = [OutgoingMessage(b"x" * 100, partition=number % partitions)] * min(BATCH, messages - start)
            await producer.send_batch(TOPIC, batch)
