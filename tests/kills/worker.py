"""A consumer that is killed: handles, fails now and then, acks durably now and then, and notes each step.

Arguments: the URL, the topic, the folder of journals, its name, the event loop, the lease in seconds; ``quick`` or
``busy``; and ``steady`` or ``jumping``: whether its wall clock jumps by up to an hour several times a second. SIGTERM
ends it in good order.

A durable ack has everything committed with it, and so has a moment without work. Who is busy has neither: only the
commit interval has its acks committed in time, and the account shows whether it does.
"""

from __future__ import annotations

import random
import signal
import sys
import time
from collections.abc import Collection, Mapping
from pathlib import Path

import anyio

import rustmq_sdk
from rustmq_sdk._core.checkpoint import decode
from rustmq_sdk.values import AckResult, Checkpoint, TopicPartition
from tests.kills.journal import Journal
from tests.kills.sender import TOPIC

GROUP = "workers"
CONCURRENCY = 8
COMMIT_INTERVAL = 0.2
BUSY = {"durably": 0.0, "slowest": 0.3}
"""Nearly as much work as there are hands for it."""
HOUR = 3600.0


class Observer:
    """Notes what the broker has confirmed, and who owns what."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def on_committed(self, checkpoints: Mapping[TopicPartition, Checkpoint]) -> None:
        for tp, checkpoint in checkpoints.items():
            above = decode(checkpoint.offset, checkpoint.extra).settled
            runs = [f"{first}-{end}" for first, end in above]
            self._journal.note("committed", tp.partition, checkpoint.offset, *runs)

    def on_rebalanced(
        self, assigned: Collection[TopicPartition], lost: Collection[TopicPartition], reason: str
    ) -> None:
        took, gave = ([tp.partition for tp in tps] for tps in (assigned, lost))
        self._journal.note(
            "rebalanced", f"+{took}".replace(" ", ""), f"-{gave}".replace(" ", ""), reason.replace(" ", "_")
        )


class Worker:
    """Handles messages in key order; some fail, some are acked durably.

    Args:
        journal: to note it in.
        rng: decides.
        rejects: how many of them are rejected, from 0 to 1.
        durably: how many of them are acked durably.
        slowest: seconds that the slowest takes.
    """

    def __init__(
        self,
        journal: Journal,
        rng: random.Random,
        rejects: float = 0.0,
        *,
        durably: float = 0.15,
        slowest: float = 0.05,
    ) -> None:
        self._journal = journal
        self._rng = rng
        self._rejects = rejects
        self._durably = durably
        self._slowest = slowest

    async def handle(self, message: rustmq_sdk.Message) -> None:
        told = (message.text(), message.partition, message.offset)
        self._journal.note("handling", *told, message.fence, message.attempt)
        await anyio.sleep(self._rng.random() ** 8 * self._slowest)  # most are quick, a few are not
        chance = self._rng.random()
        if chance < 0.03:
            self._journal.note("failed", *told)
            raise RuntimeError("on purpose")

        if chance < 0.03 + self._rejects:
            self._journal.note("rejecting", *told)
            self._journal.note("acking", *told)
            result = await message.reject("on purpose")
            told_as = "rejected" if result is AckResult.RECORDED else result.value
            self._journal.note(told_as, *told, message.fence)
            return

        # Acked here, and not by run(): so the line that says so cannot be missing because a kill came first.
        durable = chance > 1 - self._durably
        # What a kill hides is whether the ack was carried out: from here on it may be.
        self._journal.note("acking", *told)
        try:
            result = await message.ack(durable=durable)
        except rustmq_sdk.StalePartition:
            result = AckResult.STALE

        self._journal.note(result.value, *told, message.fence)


def jump(rng: random.Random) -> None:
    """Has the wall clock of this process jump, several times a second, by up to an hour to and fro."""
    wall, step = time.time_ns, time.monotonic

    def jumping() -> int:
        shift = random.Random(int(step() * 5) * 1000 + salt).uniform(-HOUR, HOUR)
        return wall() + int(shift * 1e9)

    salt = rng.randrange(1000)
    time.time_ns = jumping
    time.time = lambda: jumping() / 1e9


def settings(*, lease: float, commit_interval: float, group: str = GROUP) -> rustmq_sdk.ConsumerOptions:
    """Of a consumer that is to survive."""
    return rustmq_sdk.ConsumerOptions(
        group=group,
        lease=lease,
        commit_timeout=lease * 0.7,
        close_timeout=lease * 0.9,
        commit_interval=commit_interval,
        retry=rustmq_sdk.RetryPolicy(max_attempts=50, initial=0.02, max_delay=0.1),
    )


def group_of(topic: str) -> str:
    """Of the workers: servers that others use as well remember groups longer than topics."""
    return GROUP if topic == TOPIC else f"{GROUP}-of-{topic}"


async def main(url: str, topic: str, folder: Path, name: str, lease: float, manner: str) -> None:
    journal = Journal(folder / f"{name}.journal")
    chosen = settings(lease=lease, commit_interval=COMMIT_INTERVAL, group=group_of(topic))
    async with (
        rustmq_sdk.Client(url) as client,
        client.consumer(topic, observers=[Observer(journal)], **chosen) as consumer,
        anyio.create_task_group() as tasks,
    ):
        journal.note("ready")
        tasks.start_soon(stop_on_signal, consumer)
        worker = Worker(journal, random.Random(name), **BUSY if manner == "busy" else {})
        await consumer.run(worker.handle, concurrency=CONCURRENCY)
        tasks.cancel_scope.cancel()

    journal.note("left")


async def stop_on_signal(consumer: rustmq_sdk.Consumer) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM) as signals:
        async for _ in signals:
            consumer.stop()


if __name__ == "__main__":
    url, topic, folder, name, loop, lease, manner, clock = sys.argv[1:]
    if clock == "jumping":
        jump(random.Random(name))

    anyio.run(main, url, topic, Path(folder), name, float(lease), manner, backend=loop)
