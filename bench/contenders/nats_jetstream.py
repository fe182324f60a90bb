"""NATS JetStream with file storage, a pull consumer, nats-py."""

from __future__ import annotations

import asyncio
from time import perf_counter

import nats
from nats.js.api import ConsumerConfig, StorageType

from bench.contenders import GROUP, PAYLOAD

STREAM = "bench"
SUBJECT = "bench.messages"


def produce(place: str, messages: int, group: int) -> float:
    return asyncio.run(_produce(place, messages, group))


def consume(place: str, messages: int, group: int) -> float:
    return asyncio.run(_consume(place, messages, group))


async def _produce(url: str, messages: int, group: int) -> float:
    client = await nats.connect(url)
    stream = client.jetstream()
    for known in await stream.streams_info():
        await stream.delete_stream(known.config.name or "")

    await stream.add_stream(name=STREAM, subjects=[SUBJECT], storage=StorageType.FILE)
    began = perf_counter()
    for start in range(0, messages, group):
        if group == 1:
            await stream.publish(SUBJECT, PAYLOAD)
        else:
            several = min(group, messages - start)
            await asyncio.gather(*(stream.publish(SUBJECT, PAYLOAD) for _ in range(several)))

    took = perf_counter() - began
    assert (await stream.stream_info(STREAM)).state.messages == messages
    await client.close()
    return took


async def _consume(url: str, messages: int, group: int) -> float:
    client = await nats.connect(url)
    stream = client.jetstream()
    name = f"g{group}"
    pull = await stream.pull_subscribe(SUBJECT, name, config=ConsumerConfig(max_ack_pending=10 * GROUP))
    consumed = 0
    began = perf_counter()
    while consumed < messages:
        batch = await pull.fetch(min(GROUP, messages - consumed))
        for message in batch:
            # Either waits for the server's word each time, or only sends what it has to say.
            await (message.ack_sync() if group == 1 else message.ack())

        consumed += len(batch)

    # What was only sent has to arrive and to be done.
    while (await stream.consumer_info(STREAM, name)).num_ack_pending:  # noqa: ASYNC110 - it does not tell
        await asyncio.sleep(0.001)

    took = perf_counter() - began
    await client.close()
    return took
