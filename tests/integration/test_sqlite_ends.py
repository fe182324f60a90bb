"""Appends that are made from memory: what others did to the file meanwhile is never overlooked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import anyio
import apsw
import msgspec
import pytest

from rustmq_sdk import Client, Producer, SentMessage
from rustmq_sdk.drivers.sqlite import SqliteDriver, ends, integrity_check, remembered_appends
from rustmq_sdk.errors import PermanentDriverError, TransientDriverError
from rustmq_sdk.slots import SourceRequest
from rustmq_sdk.testing.contracts.subscriber import log_member
from rustmq_sdk.testing.listener import RecordingListener
from rustmq_sdk.values import OutgoingMessage, ProducerSequence, TopicPartition

TOPIC = "quakes"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


@pytest.fixture
async def driver(path: Path) -> AsyncIterator[SqliteDriver]:
    async with SqliteDriver(path) as driver:
        yield driver


@pytest.fixture
async def other(path: Path) -> AsyncIterator[SqliteDriver]:
    """Somebody else with the file: a connection of its own, as another process has."""
    async with SqliteDriver(path) as driver:
        yield driver


async def append(
    driver: SqliteDriver, *payloads: bytes, partition: int = 0, first: int | None = None, producer: bytes = b"p"
) -> list[int | None]:
    sequence = None if first is None else ProducerSequence(producer, first)
    messages = [OutgoingMessage(payload) for payload in payloads]
    return [sent.offset for sent in await driver.sink().append(TOPIC, partition, messages, sequence=sequence)]


async def contents(driver: SqliteDriver, count: int) -> list[bytes | None]:
    request = SourceRequest(topics=[TOPIC], group=None, lease=10, revoke_budget=5)
    async with log_member(driver, request, RecordingListener(committed=False), 10) as member:
        await member.owns([TopicPartition(TOPIC, 0)])
        await member.collect(count)
        await member.fetch(max_wait=0.0)
        return member.payloads()


async def test_two_who_append_in_turn_leave_no_gap_and_overwrite_nothing(
    driver: SqliteDriver, other: SqliteDriver, path: Path
) -> None:
    offsets = []
    for number in range(10):
        writer = (driver, other)[number // 2 % 2]
        offsets += await append(writer, b"%d" % number)

    assert offsets == list(range(10))
    assert await contents(driver, 10) == [b"%d" % number for number in range(10)]
    assert integrity_check(path) == ()


async def test_two_who_append_at_once_leave_no_gap_and_overwrite_nothing(
    driver: SqliteDriver, other: SqliteDriver, path: Path
) -> None:
    offsets: list[int | None] = []

    async def write(writer: SqliteDriver, name: bytes) -> None:
        for number in range(20):
            offsets.extend(await append(writer, name, first=number, producer=name))

    await append(driver, b"first")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write, driver, b"a")
        tasks.start_soon(write, other, b"b")

    assert sorted(offset or 0 for offset in offsets) == list(range(1, 41))
    stored = await contents(driver, 41)
    assert stored.count(b"a") == stored.count(b"b") == 20
    assert integrity_check(path) == ()


async def test_a_repeated_append_is_recognised_whoever_stored_it(driver: SqliteDriver, other: SqliteDriver) -> None:
    assert await append(driver, b"a", first=0) == [0]
    assert await append(driver, b"b", first=1) == [1]
    assert await append(other, b"b", first=1) == [1]
    assert await append(other, b"c", first=2) == [2]
    assert await append(driver, b"c", first=2) == [2]
    assert await append(driver, b"d", first=3) == [3]
    assert await append(driver, b"d", first=3) == [3]
    with pytest.raises(PermanentDriverError, match="overlap"):
        await append(driver, b"d", b"e", first=3)

    assert await append(driver, b"e", first=4) == [4]
    assert await contents(driver, 5) == [b"a", b"b", b"c", b"d", b"e"]


async def test_a_topic_that_was_made_anew_begins_at_its_beginning(driver: SqliteDriver, other: SqliteDriver) -> None:
    assert await append(driver, b"a", b"b", first=0) == [0, 1]
    assert await append(driver, b"c", first=2) == [2]
    await other.admin().delete_topic(TOPIC)
    await other.admin().create_topic(TOPIC, 1, {})
    assert await append(driver, b"c", first=2) == [0], "what went with its topic is not what the producer was told of"
    assert await append(driver, b"d", first=3) == [1]
    await driver.admin().delete_topic(TOPIC)
    assert await append(driver, b"e", first=4) == [0]


async def test_after_a_full_disk_the_end_is_where_it_was(driver: SqliteDriver) -> None:
    assert await append(driver, b"a", first=0) == [0]
    connection = driver._file()._writer._connection
    assert connection is not None
    limit = connection.pragma("max_page_count")
    connection.pragma("max_page_count", connection.pragma("page_count") + 2)
    with pytest.raises(TransientDriverError, match="disk is full"):
        await append(driver, bytes(500_000), first=1)

    connection.pragma("max_page_count", limit)
    assert await append(driver, b"b", first=1) == [1]
    assert await append(driver, b"b", first=1) == [1]
    assert await contents(driver, 2) == [b"a", b"b"]


async def test_an_append_asks_and_writes_nothing_but_what_is_new(driver: SqliteDriver) -> None:
    writer = driver._file()._writer
    await append(driver, b"a", first=0, producer=b"q")
    await append(driver, b"a", first=0)
    await writer._thread.run(int)  # what follows a commit is over now
    connection = writer._connection
    assert connection is not None
    statements: list[str] = []

    def trace(_cursor: apsw.Cursor, sql: str, _values: apsw.Bindings | None) -> bool:
        statements.append(sql.split(maxsplit=1)[0])
        return True

    connection.exec_trace = trace
    await append(driver, b"b", first=1)
    await writer._thread.run(int)
    connection.exec_trace = None
    assert statements == ["BEGIN", "UPDATE", "INSERT", "INSERT", "COMMIT"]


async def test_batches_of_several_tasks_share_a_row_and_its_sync(path: Path) -> None:
    answers: list[Sequence[SentMessage]] = []

    async def send(producer: Producer) -> None:
        answers.append(await producer.send_batch(TOPIC, [b"x"] * 500))

    async with (
        Client(f"sqlite:///{path}") as client,
        client.producer() as producer,
        anyio.create_task_group() as tasks,
    ):
        for _ in range(4):
            tasks.start_soon(send, producer)

    connection = apsw.Connection(str(path))
    assert connection.execute("SELECT base, count FROM batch").fetchall() == [(0, 2000)]
    connection.close()
    assert sorted(sent.offset or 0 for answer in answers for sent in answer) == list(range(2000))
    for answer in answers:
        first = answer[0].offset or 0
        assert answer == [SentMessage(TOPIC, 0, first + at, answer[0].timestamp) for at in range(500)]


async def test_of_a_producers_appends_the_last_few_are_remembered(driver: SqliteDriver, path: Path) -> None:
    for first in range(20):
        await append(driver, b"x", first=first)

    connection = apsw.Connection(str(path))
    stored: Any = connection.execute("SELECT appends FROM producer").get
    connection.close()
    assert [first for first, _, _ in msgspec.msgpack.decode(stored)] == [15, 16, 17, 18, 19]
    assert await append(driver, b"x", first=15) == [15]
    with pytest.raises(PermanentDriverError, match="from 15 on"):
        await append(driver, b"x", first=14)

    await append(driver, b"x", first=20)
    for end in driver._file()._writer._ends._ends.values():
        assert all(len(known) <= remembered_appends.REMEMBERED for known in end.appends._known.values())


async def test_what_is_remembered_is_bounded(driver: SqliteDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ends, "ENDS", 2)
    monkeypatch.setattr(remembered_appends, "PRODUCERS", 2)
    await driver.admin().create_topic(TOPIC, 5, {})
    for first in range(3):
        for partition in range(5):
            for producer in (b"a", b"b", b"c"):
                message = b"%d" % first
                offsets = await append(driver, message, partition=partition, first=first, producer=producer)
                assert offsets == [first * 3 + b"abc".index(producer)]

    remembered = driver._file()._writer._ends._ends
    assert 0 < len(remembered) <= 2
    assert all(len(end.appends._known) <= 2 for end in remembered.values())
    assert await append(driver, b"2", partition=4, first=2, producer=b"a") == [6]
