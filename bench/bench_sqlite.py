"""The embedded log against bare apsw loops over the same blobs: durable appends, and reading with commits.

Appends are measured one batch after the other, where each waits for its sync and for the way to the writer's thread and
back; and as a busy program sends them, from several tasks or without waiting, where those that wait share a sync.

Both sides encode and decode the same columns, write with WAL and FULL sync, and build the same messages. The bare
reader keeps apsw on a thread of its own, crosses to it once a batch, and writes its position every 5,000 messages: what
one would write by hand.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import apsw
import msgspec
import pytest

import rustmq_sdk
from rustmq_sdk._threads import DaemonThread
from rustmq_sdk.drivers.sqlite.codec import build, decode
from rustmq_sdk.values import OutgoingMessage

MESSAGES = 200_000
"""Enough for the write-ahead log to be written over many times: as long as it grows, a sync is three times as dear."""
BATCH = 500
SENDERS = 8
"""Tasks that send at once."""
COMMIT_EVERY = 5000
SPIN = 200
"""Turns of an empty loop a message: about 5 us of handler that never waits."""

numbers = count()


def batches() -> Iterator[list[OutgoingMessage]]:
    for _ in range(MESSAGES // BATCH):
        yield [OutgoingMessage(b"x" * 100)] * BATCH


def open_bare(path: Path) -> apsw.Connection:
    connection = apsw.Connection(str(path))
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", "full")
    connection.execute("CREATE TABLE IF NOT EXISTS batch (base INTEGER PRIMARY KEY, count INTEGER, data BLOB)")
    connection.execute("CREATE TABLE IF NOT EXISTS position (value INTEGER)")
    return connection


def append_bare(path: Path) -> None:
    connection = open_bare(path)
    base = 0
    for batch in batches():
        data = msgspec.msgpack.encode(([message.payload for message in batch], None, None, 0))
        with connection:
            connection.execute("INSERT INTO batch VALUES (?, ?, ?)", (base, len(batch), data))
        base += len(batch)

    connection.close()


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.fixture(scope="module")
def filled(folder: Path) -> tuple[str, Path]:
    """The same messages in our file and in a bare one."""
    url = f"sqlite:///{folder}/filled.db"

    async def fill() -> None:
        async with rustmq_sdk.Client(url) as client, client.producer() as producer:
            for batch in batches():
                await producer.send_batch("bench", batch)

    anyio.run(fill)
    append_bare(folder / "bare.db")
    return url, folder / "bare.db"


def test_bare_append(measure: Any, folder: Path) -> None:
    async def program() -> None:
        append_bare(folder / f"bare-{next(numbers)}.db")

    measure(program, MESSAGES, table="durable append in groups of 500", bare=True)


@asynccontextmanager
async def producer_of_new_log(folder: Path) -> AsyncIterator[rustmq_sdk.Producer]:
    url = f"sqlite:///{folder}/ours-{next(numbers)}.db"
    async with rustmq_sdk.Client(url) as client, client.producer() as producer:
        yield producer


def test_send_batch(measure: Any, folder: Path) -> None:
    async def program() -> None:
        async with producer_of_new_log(folder) as producer:
            for batch in batches():
                await producer.send_batch("bench", batch)

    measure(program, MESSAGES, table="durable append in groups of 500", goal="<= 1.11: 0.9 of its rate")


def test_send_batch_from_several_tasks(measure: Any, folder: Path) -> None:
    async def program() -> None:
        waiting = batches()

        async def send() -> None:
            for batch in waiting:
                await producer.send_batch("bench", batch)

        async with producer_of_new_log(folder) as producer, anyio.create_task_group() as tasks:
            for _ in range(SENDERS):
                tasks.start_soon(send)

    measure(program, MESSAGES, table="durable append in groups of 500", goal="<= 1")


def test_send_nowait_and_flush(measure: Any, folder: Path) -> None:
    async def program() -> None:
        async with producer_of_new_log(folder) as producer:
            for batch in batches():
                for message in batch:
                    try:
                        producer.send_nowait("bench", message.payload)
                    except rustmq_sdk.BufferFull:
                        await producer.flush()
                        producer.send_nowait("bench", message.payload)

            await producer.flush()

    measure(program, MESSAGES, table="durable append in groups of 500")


@asynccontextmanager
async def bare_reader(path: Path) -> AsyncIterator[Callable[[], Awaitable[list[rustmq_sdk.Message]]]]:
    """Answers the next batch of messages; empty at the end."""
    thread = DaemonThread("bare reader")
    connection = await thread.run(open_bare, path)
    position = committed = 0

    def read() -> Any:
        nonlocal position, committed
        if position - committed >= COMMIT_EVERY:
            with connection:
                connection.execute("DELETE FROM position")
                connection.execute("INSERT INTO position VALUES (?)", (position,))
            committed = position

        for row in connection.execute("SELECT base, count, data FROM batch WHERE base >= ? LIMIT 1", (position,)):
            position = row[0] + row[1]
            return decode(row[0], row[1], row[2], None)

        return None

    async def next_batch() -> list[rustmq_sdk.Message]:
        records = await thread.run(read)
        return [] if records is None else build(records, None, 0)  # type: ignore[arg-type]

    try:
        yield next_batch
    finally:
        await thread.run(connection.close)
        thread.close()


def spin(turns: int) -> None:
    for _ in range(turns):
        pass


def bare(path: Path, turns: int) -> Callable[[], Awaitable[None]]:
    async def program() -> None:
        async with bare_reader(path) as next_batch:
            while batch := await next_batch():
                for message in batch:
                    assert message
                    spin(turns)

    return program


def ours(url: str, turns: int) -> Callable[[], Awaitable[None]]:
    async def program() -> None:
        async with rustmq_sdk.Client(url) as client, client.consumer("bench", group=f"g{next(numbers)}") as consumer:
            for _ in range(MESSAGES):
                message = await consumer.receive()
                spin(turns)
                await message.ack()

    return program


def test_bare_read(measure: Any, filled: tuple[str, Path]) -> None:
    measure(bare(filled[1], 0), MESSAGES, table="reading with commits", bare=True)


def test_receive_and_ack(measure: Any, filled: tuple[str, Path]) -> None:
    measure(ours(filled[0], 0), MESSAGES, table="reading with commits", goal="<= 2: half of its rate")


def test_bare_read_beside_a_busy_handler(measure: Any, filled: tuple[str, Path]) -> None:
    measure(bare(filled[1], SPIN), MESSAGES, table="reading beside a CPU-bound handler", bare=True)


def test_receive_and_ack_beside_a_busy_handler(measure: Any, filled: tuple[str, Path]) -> None:
    measure(ours(filled[0], SPIN), MESSAGES, table="reading beside a CPU-bound handler", goal="<= 2")
