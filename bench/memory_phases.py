"""What the process does whose memory is measured."""

from __future__ import annotations

import os
import random
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import anyio

import rustmq_sdk
from rustmq_sdk.values import OutgoingMessage

TOPIC = "memory"
PARTITIONS = 4
BATCH = 500
AHEAD = 20_000
"""Messages that the sender is ahead at most: the receiver never waits, and the file stays small."""
WINDOW = 5_000
SAMPLES = 100
KEYS = 10_000
RETENTION = 8 * 2**20

Phase = Callable[[rustmq_sdk.Consumer, int, "Progress"], Awaitable[None]]


class Progress:
    """Counts what was received; takes samples on the way; lets the sender go on."""

    def __init__(self, messages: int) -> None:
        self.samples: list[int] = []
        self.received = 0
        self._every = max(1, messages // SAMPLES)
        self._moved = anyio.Event()

    def received_one(self) -> None:
        self.received += 1
        if self.received % self._every == 0:
            self.samples.append(resident())

        if self.received % BATCH == 0:
            self._moved.set()
            self._moved = anyio.Event()

    async def until(self, received: int) -> None:
        while self.received < received:
            await self._moved.wait()


def measure(loop: str, each: int, phases: Sequence[str]) -> dict[str, dict[str, object]]:
    return anyio.run(_measure, each, phases, backend=loop)


async def _measure(each: int, phases: Sequence[str]) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-memory-") as folder:
        async with rustmq_sdk.Client(f"sqlite:///{Path(folder) / 'log.db'}?retention_bytes={RETENTION}") as client:
            await client.create_topic(TOPIC, PARTITIONS)
            for name in phases:
                began = time.perf_counter()
                progress = await _phase(client, PROGRAMS[name], each)
                found[name] = {"seconds": time.perf_counter() - began, "samples": progress.samples}

    return found


async def _phase(client: rustmq_sdk.Client, program: Phase, messages: int) -> Progress:
    progress = Progress(messages)
    retry = rustmq_sdk.RetryPolicy(initial=0.01, max_delay=0.05)
    async with (
        client.consumer(TOPIC, group="g", retry=retry) as consumer,
        client.producer() as producer,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(_send, producer, messages, progress)
        await program(consumer, messages, progress)

    return progress


async def _send(producer: rustmq_sdk.Producer, messages: int, progress: Progress) -> None:
    for start in range(0, messages, BATCH):
        await progress.until(start - AHEAD)
        count = min(BATCH, messages - start)
        batch = [
            OutgoingMessage(os.urandom(50).hex().encode(), b"%d" % (n % KEYS)) for n in range(start, start + count)
        ]
        await producer.send_batch(TOPIC, batch)


async def in_order(consumer: rustmq_sdk.Consumer, messages: int, progress: Progress) -> None:
    for _ in range(messages):
        message = await consumer.receive()
        await message.ack()
        progress.received_one()


async def at_random(consumer: rustmq_sdk.Consumer, messages: int, progress: Progress) -> None:
    rng = random.Random(1)
    held: list[rustmq_sdk.Message] = []
    for _ in range(messages):
        held.append(await consumer.receive())
        progress.received_one()
        if len(held) > WINDOW:
            index = rng.randrange(len(held))
            held[index], held[-1] = held[-1], held[index]
            await held.pop().ack()

    for message in held:
        await message.ack()


async def with_nacks(consumer: rustmq_sdk.Consumer, messages: int, progress: Progress) -> None:
    left = messages
    while left:
        message = await consumer.receive()
        if message.attempt == 1 and hash(message.payload) % 100 == 0:
            await message.nack()
        else:
            await message.ack()
            progress.received_one()
            left -= 1


async def by_key(consumer: rustmq_sdk.Consumer, messages: int, progress: Progress) -> None:
    async def handle(message: rustmq_sdk.Message) -> None:
        progress.received_one()
        if progress.received >= messages:
            consumer.stop()

    await consumer.run(handle, ordering="key", concurrency=16)


async def in_batches(consumer: rustmq_sdk.Consumer, messages: int, progress: Progress) -> None:
    left = messages
    while left:
        batch = await consumer.receive_batch(BATCH)
        await batch.ack()
        for _ in batch:
            progress.received_one()

        left -= len(batch)


PROGRAMS: dict[str, Phase] = {
    "in order": in_order,
    "acked at random": at_random,
    "every 100th nacked": with_nacks,
    "run() in key order": by_key,
    "in batches": in_batches,
}


def resident() -> int:
    """Bytes of this process that are in memory now."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except FileNotFoundError:
        said = subprocess.run(["ps", "-o", "rss=", "-p", str(os.getpid())], capture_output=True, check=True)
        return int(said.stdout) * 1024
