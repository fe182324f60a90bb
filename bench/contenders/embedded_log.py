"""This project's embedded log."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter

import anyio

import rustmq_sdk
from bench.contenders import PAYLOAD
from rustmq_sdk.values import OutgoingMessage

TOPIC = "bench"


def produce(place: str, messages: int, group: int) -> float:
    return anyio.run(_produce, _url(place), messages, group)


def consume(place: str, messages: int, group: int) -> float:
    return anyio.run(_consume, _url(place), messages, group)


def _url(place: str) -> str:
    return f"sqlite:///{Path(place) / 'log.db'}"


async def _produce(url: str, messages: int, group: int) -> float:
    async with rustmq_sdk.Client(url) as client, client.producer() as producer:
        await client.create_topic(TOPIC)
        began = perf_counter()
        if group == 1:
            for _ in range(messages):
                await producer.send(TOPIC, PAYLOAD)
        else:
            for start in range(0, messages, group):
                await producer.send_batch(TOPIC, [OutgoingMessage(PAYLOAD)] * min(group, messages - start))

        return perf_counter() - began


async def _consume(url: str, messages: int, group: int) -> float:
    async with rustmq_sdk.Client(url) as client, client.consumer(TOPIC, group=f"g{group}") as consumer:
        # From the first message on, as with the others: joining a group is no part of it.
        await (await consumer.receive()).ack(durable=True)
        began = perf_counter()
        for _ in range(messages - 1):
            message = await consumer.receive()
            await message.ack(durable=group == 1)

        await consumer.commit()
        took = perf_counter() - began
        assert sum((await consumer.get_lag()).values()) == 0
        return took
