"""What the tests say again and again: send numbers, read them, wait for something."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import asynccontextmanager
from typing import Unpack

import anyio
import pytest

import rustmq_sdk
from rustmq_sdk.values import Gone, OutgoingMessage, TopicPartition

SOON = 60.0
"""Seconds that anything may take here; what takes longer hangs."""
AT_ONCE = 15.0
"""Seconds: less than any lease, budget or timeout that would end a wait here, and more than a machine stands still."""
LOOK = 0.02

# What takes long, because a server does, and has little to do with the loop, runs on one of them.
on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"])
on_trio = pytest.mark.parametrize("anyio_backend", ["trio"])


async def send_numbers(url: str, topic: str, numbers: Iterable[int], *, partition: int | None = None) -> None:
    """Each as a message, to one partition or spread by its key."""
    async with rustmq_sdk.Client(url) as client, client.producer() as producer:
        messages = [OutgoingMessage(b"%d" % number, b"%d" % number, partition=partition) for number in numbers]
        await producer.send_batch(topic, messages)


def options(**given: Unpack[rustmq_sdk.ConsumerOptions]) -> rustmq_sdk.ConsumerOptions:
    """As a user has them, but for what happens often: a shorter lease would end where a machine stands still."""
    chosen = rustmq_sdk.ConsumerOptions(
        lease=30.0, close_timeout=20.0, commit_timeout=10.0, commit_interval=0.2, circuit_open=1.0
    )
    chosen.update(given)
    return chosen


@asynccontextmanager
async def consuming(
    url: str, *topics: str, observers: Iterable[object] = (), **given: Unpack[rustmq_sdk.ConsumerOptions]
) -> AsyncIterator[rustmq_sdk.Consumer]:
    """A consumer on a client of its own."""
    async with (
        rustmq_sdk.Client(url) as client,
        client.consumer(*topics, observers=list(observers), **options(**given)) as consumer,
    ):
        yield consumer


async def until(holds: Callable[[], object], *, within: float = SOON) -> None:
    """Returns as soon as it does; ``TimeoutError`` if it never does."""
    with anyio.fail_after(within):
        while not holds():  # noqa: ASYNC110  # what is waited for happens on servers
            await anyio.sleep(LOOK)


async def settle(consumer: rustmq_sdk.Consumer, count: int) -> list[int]:
    """Acks so many messages; answers their numbers."""
    numbers = []
    for _ in range(count):
        message = await consumer.receive(timeout=SOON)
        numbers.append(int(message.text()))
        await message.ack()

    return numbers


async def until_committed(consumer: rustmq_sdk.Consumer) -> None:
    """Commits; again where an answer took longer than a test with short times waits for it."""
    with anyio.fail_after(SOON):
        while True:
            try:
                return await consumer.commit()
            except (rustmq_sdk.TransientDriverError, rustmq_sdk.CircuitOpen):
                await anyio.sleep(0.2)


class Events:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.rebalances: list[tuple[list[TopicPartition], list[TopicPartition], str]] = []
        self.failed_commits: list[str] = []
        self.circuits: list[tuple[str, str]] = []
        self.gone: list[Gone] = []
        self.stopped: list[rustmq_sdk.PartitionStopped] = []

    def on_rebalanced(
        self, assigned: Collection[TopicPartition], lost: Collection[TopicPartition], reason: str
    ) -> None:
        self.rebalances.append((sorted(assigned), sorted(lost), reason))

    def on_commit_failed(self, partitions: Collection[TopicPartition], reason: str) -> None:
        self.failed_commits.append(reason)

    def on_circuit_changed(self, circuit: str, before: str, after: str) -> None:
        self.circuits.append((circuit, after))

    def on_lost(self, gone: Gone) -> None:
        self.gone.append(gone)

    def on_partition_stopped(self, error: rustmq_sdk.PartitionStopped) -> None:
        self.stopped.append(error)
