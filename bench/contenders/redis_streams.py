"""Redis Streams, a consumer group, redis-py on asyncio."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Any

import redis.asyncio as redis

from bench.contenders import GROUP, PAYLOAD

STREAM = "bench"


def produce(place: str, messages: int, group: int) -> float:
    return asyncio.run(_produce(place, messages, group))


def consume(place: str, messages: int, group: int) -> float:
    return asyncio.run(_consume(place, messages, group))


async def _produce(url: str, messages: int, group: int) -> float:
    async with redis.Redis.from_url(url) as client:
        await client.delete(STREAM)
        began = perf_counter()
        for start in range(0, messages, group):
            if group == 1:
                await client.xadd(STREAM, {"payload": PAYLOAD})
            else:
                async with client.pipeline(transaction=False) as pipeline:
                    for _ in range(min(group, messages - start)):
                        pipeline.xadd(STREAM, {"payload": PAYLOAD})

                    await pipeline.execute()

        took = perf_counter() - began
        assert await client.xlen(STREAM) == messages
        return took


async def _consume(url: str, messages: int, group: int) -> float:
    name = f"g{group}"
    async with redis.Redis.from_url(url) as client:
        await client.xgroup_create(STREAM, name, id="0")
        consumed = 0
        began = perf_counter()
        while consumed < messages:
            # Always in batches: reading one at a time is nobody's way to use it.
            answer: Any = await client.xreadgroup(name, "consumer", {STREAM: ">"}, count=GROUP)
            ((_, entries),) = answer
            ids = [entry[0] for entry in entries]
            if group == 1:
                for one in ids:
                    await client.xack(STREAM, name, one)
            else:
                await client.xack(STREAM, name, *ids)

            consumed += len(entries)

        took = perf_counter() - began
        assert (await client.xpending(STREAM, name))["pending"] == 0
        return took
