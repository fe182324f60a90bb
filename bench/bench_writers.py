"""Several processes that write one embedded log at full speed, beside consumers: how long does anybody wait?

    python bench/bench_writers.py                       four writers, one of them polite, a consumer, a slow reader
    python bench/bench_writers.py --floods 6 --hold 2   more, and somebody holds read transactions of two seconds

Each role is a process of its own: ``flood`` sends batches of 500 from eight tasks without a pause, ``polite`` sends one
message every ten milliseconds, ``consumer`` handles and commits what comes as fast as it can, ``slow`` is another group
that takes one message every five milliseconds, ``holder`` reads in transactions that overlap, as a backup does. The
table says how long single calls took, in milliseconds; the last line how long the write-ahead log became.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import apsw

import rustmq_sdk
from rustmq_sdk.drivers.sqlite import integrity_check
from rustmq_sdk.values import OutgoingMessage

TOPIC, PARTITIONS = "bench", 4
BATCH = [OutgoingMessage(b"x" * 100)] * 500
TASKS = 8
"""Of one flooding process."""

Calls = list[float]
"""How long each call took, in seconds."""


class Told(NamedTuple):
    """What one process says at its end."""

    role: str
    calls: Calls
    messages: int


async def timed(call: Callable[[], Awaitable[Any]], calls: Calls) -> Any:
    """Makes the call and notes how long it took."""
    start = time.perf_counter()
    result = await call()
    calls.append(time.perf_counter() - start)
    return result


async def flood(client: rustmq_sdk.Client, calls: Calls) -> int:
    async with client.producer() as producer, anyio.create_task_group() as tasks:

        async def send() -> None:
            while True:
                await timed(lambda: producer.send_batch(TOPIC, BATCH), calls)

        for _ in range(TASKS):
            tasks.start_soon(send)

        return 0


async def polite(client: rustmq_sdk.Client, calls: Calls) -> None:
    async with client.producer() as producer:
        while True:
            await timed(lambda: producer.send(TOPIC, b"one"), calls)
            await anyio.sleep(0.01)


async def consumer(client: rustmq_sdk.Client, calls: Calls) -> None:
    async with client.consumer(TOPIC, group="quick") as consumer:
        while True:
            await (await timed(consumer.receive_batch, calls)).ack()


async def slow(client: rustmq_sdk.Client, calls: Calls) -> None:
    async with client.consumer(TOPIC, group="slow") as consumer:
        while True:
            await (await timed(consumer.receive, calls)).ack()
            await anyio.sleep(0.005)


async def committer(client: rustmq_sdk.Client, calls: Calls) -> None:
    async with client.consumer(TOPIC, group="careful") as consumer:
        while True:
            message = await consumer.receive()
            await timed(partial(message.ack, durable=True), calls)


ROLES: dict[str, Callable[[rustmq_sdk.Client, Calls], Awaitable[Any]]] = {
    "flood": flood,
    "polite": polite,
    "consumer": consumer,
    "slow": slow,
    "committer": committer,
}


def play(role: str, url: str, seconds: float) -> Told:
    """One process."""
    calls: Calls = []

    async def program() -> None:
        with anyio.move_on_after(seconds):
            async with rustmq_sdk.Client(url) as client:
                await ROLES[role](client, calls)

    anyio.run(program)
    return Told(role, calls, len(calls) * (len(BATCH) if role in ("flood", "consumer") else 1))


def hold(path: Path, seconds: float, each: float) -> Told:
    """Reads with transactions that overlap: one connection begins before the other ends."""
    connections = [apsw.Connection(str(path)) for _ in range(2)]
    end = time.monotonic() + seconds
    held: Calls = []
    for turn in range(10**6):
        if time.monotonic() > end:
            break

        connection = connections[turn % 2]
        if connection.in_transaction:
            connection.execute("COMMIT")

        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM topic").fetchall()
        time.sleep(each / 2)
        held.append(each)

    for connection in connections:
        connection.close()

    return Told("holder", held, 0)


def watch(path: Path, ended: Callable[[], bool]) -> tuple[int, int]:
    """The longest that the write-ahead log became, and how long it is at the end; by stat, which opens nothing."""
    wal = Path(f"{path}-wal")
    longest = size = 0
    while not ended():
        size = wal.stat().st_size if wal.exists() else 0
        longest = max(longest, size)
        time.sleep(0.01)

    return longest, size


def measure(path: Path, chosen: argparse.Namespace) -> dict[str, Any]:
    """Runs all, and says what came of it."""
    url = f"sqlite:///{path}"
    anyio.run(create, url)
    parts = ["flood"] * chosen.floods + ["polite"] * chosen.polite
    parts += [role for role in ("consumer", "slow", "committer") if role not in chosen.without]
    context = multiprocessing.get_context("spawn")
    with context.Pool(len(parts) + 1) as processes, ThreadPool(1) as thread:
        started = time.monotonic()
        runs = [processes.apply_async(play, (role, url, chosen.seconds)) for role in parts]
        if chosen.hold:
            runs.append(processes.apply_async(hold, (path, chosen.seconds, chosen.hold)))

        wal = thread.apply_async(watch, (path, lambda: all(run.ready() for run in runs)))
        told = [run.get() for run in runs]
        longest, left = wal.get()

    return {
        "seconds": time.monotonic() - started,
        "processes": [summary(each) for each in told],
        "wal_longest": longest,
        "wal_left": left,
        "log": path.stat().st_size,
        "problems": integrity_check(path) if chosen.check else (),
    }


async def create(url: str) -> None:
    async with rustmq_sdk.Client(url) as client:
        await client.create_topic(TOPIC, partitions=PARTITIONS)


def summary(told: Told) -> dict[str, Any]:
    ordered = sorted(told.calls) or [0.0]
    at = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    waits = {name: ordered[min(int(len(ordered) * part), len(ordered) - 1)] * 1000 for name, part in at.items()}
    return {"role": told.role, "calls": len(told.calls), "messages": told.messages, **waits}


def show(result: dict[str, Any]) -> None:
    print(f"{'':12s}{'calls':>9s}{'messages':>12s}{'p50 ms':>9s}{'p99 ms':>9s}{'max ms':>9s}")
    for row in result["processes"]:
        waits = "".join(f"{row[name]:9.1f}" for name in ("p50", "p99", "max"))
        print(f"{row['role']:12s}{row['calls']:9,}{row['messages']:12,}{waits}")

    mib = 1024 * 1024
    print(
        f"write-ahead log at most {result['wal_longest'] / mib:.0f} MiB, at the end {result['wal_left'] / mib:.0f};"
        f" log {result['log'] / mib:.0f} MiB; {result['seconds']:.1f} s"
    )
    for problem in result["problems"]:
        print(problem)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Several processes write one embedded log.")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--floods", type=int, default=3, help="processes that send without a pause")
    parser.add_argument("--polite", type=int, default=1, help="processes that send a message now and then")
    parser.add_argument("--hold", type=float, default=0.0, help="somebody's read transactions take so many seconds")
    parser.add_argument("--without", action="append", default=[], help="consumer, slow or committer")
    parser.add_argument("--folder", type=Path, help="where to put the log; default: a temporary one")
    parser.add_argument("--check", action="store_true", help="look the log over in the end")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="rustmq-writers-", dir=chosen.folder) as folder:
        result = measure(Path(folder) / "log.db", chosen)

    if chosen.json:
        print(json.dumps(result))
    else:
        show(result)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    main()
