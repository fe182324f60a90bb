"""The two ends of a latency measurement; what runs in the processes."""

from __future__ import annotations

from pathlib import Path
from time import monotonic_ns, sleep

import anyio
import apsw

import rustmq_sdk
from bench.children import say
from bench.tables import percentile

TOPIC = "latency"
SIZE = 100
WARM_UP = 0.5
ONE_BY_ONE = 1_000
"""Messages a second up to which each is sent by a task of its own."""
MS = 1e6


def both(url: str, loop: str, rate: int, seconds: float) -> dict[str, float]:
    """Sender and receiver as two tasks of one loop, over one client."""
    return anyio.run(_both, url, rate, seconds, backend=loop)


def sender(url: str, loop: str, rate: int, seconds: float, topic: str = TOPIC) -> dict[str, float]:
    return anyio.run(_sender, url, rate, seconds, topic, backend=loop)


def receiver(url: str, loop: str, rate: int, seconds: float) -> dict[str, float]:
    return anyio.run(_receiver, url, rate, seconds, backend=loop)


def by_hand(folder: str, sync: str, rate: int, seconds: float) -> dict[str, float]:
    """What the disk, and the scheduler, take in any case: no threads, no loop, no other process."""
    took: list[int] = []
    connection = apsw.Connection(str(Path(folder) / "by-hand.db"))
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", sync)
    connection.execute("CREATE TABLE message (payload BLOB)")
    begin = monotonic_ns()
    for sent in range(int(rate * seconds)):
        sleep(max(0.0, (begin + sent * 1_000_000_000 / rate - monotonic_ns()) / 1e9))
        began = monotonic_ns()
        connection.execute("INSERT INTO message VALUES (?)", (_stamped(began),))
        took.append(monotonic_ns() - began)

    connection.close()
    return {"rate": len(took) / (monotonic_ns() - begin) * 1e9} | _sending(took[int(rate * WARM_UP) :])


async def _both(url: str, rate: int, seconds: float) -> dict[str, float]:
    found: dict[str, float] = {}
    async with rustmq_sdk.Client(url) as client:
        await client.create_topic(TOPIC, 1)
        async with client.consumer(TOPIC, group="g") as consumer, client.producer(linger=0) as producer:
            await _settle_down(consumer)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_receive, consumer, rate, seconds, found)
                found.update(await _send(producer, rate, seconds))

    return found


async def _sender(url: str, rate: int, seconds: float, topic: str) -> dict[str, float]:
    async with rustmq_sdk.Client(url) as client, client.producer(linger=0) as producer:
        return await _send(producer, rate, seconds, topic)


async def _receiver(url: str, rate: int, seconds: float) -> dict[str, float]:
    found: dict[str, float] = {}
    async with rustmq_sdk.Client(url) as client:
        await client.create_topic(TOPIC, 1)
        async with client.consumer(TOPIC, group="g") as consumer:
            await _settle_down(consumer)
            say("ready")
            await _receive(consumer, rate, seconds, found)

    return found


async def _settle_down(consumer: rustmq_sdk.Consumer) -> None:
    """Waits until the partition is ours, so that joining the group is no part of any latency."""
    with anyio.fail_after(30):
        while not consumer.assigned_partitions:  # noqa: ASYNC110 - there is no event for it
            await anyio.sleep(0.01)


async def _send(producer: rustmq_sdk.Producer, rate: int, seconds: float, topic: str = TOPIC) -> dict[str, float]:
    """Keeps to the timetable: what is late is sent at once, and waits for nobody."""
    took: list[int] = []
    total = int(rate * seconds)

    async def send_one() -> None:
        began = monotonic_ns()
        await producer.send(topic, _stamped(began))
        took.append(monotonic_ns() - began)

    begin = monotonic_ns()
    async with anyio.create_task_group() as tasks:
        sent = 0
        while sent < total:
            due = min(total, (monotonic_ns() - begin) * rate // 1_000_000_000 + 1)
            for _ in range(sent, due):
                if rate <= ONE_BY_ONE:
                    tasks.start_soon(send_one)
                else:
                    producer.send_nowait(topic, _stamped(monotonic_ns()))

            sent = max(sent, due)
            await anyio.sleep(max(0.0, (begin + sent * 1_000_000_000 / rate - monotonic_ns()) / 1e9))

    await producer.flush()
    return _sending(took[int(rate * WARM_UP) :])


def _sending(took: list[int]) -> dict[str, float]:
    return {"send p50": percentile(took, 50) / MS, "send p99": percentile(took, 99) / MS} if took else {}


async def _receive(consumer: rustmq_sdk.Consumer, rate: int, seconds: float, found: dict[str, float]) -> None:
    took: list[int] = []
    total = int(rate * seconds)
    first = 0
    for _ in range(total):
        message = await consumer.receive()
        now = monotonic_ns()
        first = first or now
        took.append(now - int.from_bytes((message.payload or b"")[:8], "big"))
        await message.ack()

    steady = took[int(rate * WARM_UP) :]
    found["rate"] = (total - 1) / (now - first) * 1e9
    found["max"] = max(steady) / MS
    for percent in (50, 99):
        found[f"p{percent}"] = percentile(steady, percent) / MS


def _stamped(now: int) -> bytes:
    return now.to_bytes(8, "big") + bytes(SIZE - 8)
