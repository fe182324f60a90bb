"""What is special about the embedded log: its rows, its retention, several drivers on one file."""

from __future__ import annotations

import re
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import apsw
import pytest

from rustmq_sdk._threads import DaemonThread
from rustmq_sdk.drivers import sqlite
from rustmq_sdk.drivers.sqlite import SqliteDriver, integrity_check
from rustmq_sdk.drivers.sqlite.database import SAFE_SQLITE
from rustmq_sdk.drivers.sqlite.fetching import READ_AHEAD
from rustmq_sdk.drivers.sqlite.holdings import Holdings
from rustmq_sdk.drivers.sqlite.member_lock import lock_path
from rustmq_sdk.drivers.sqlite.options import SqliteOptions
from rustmq_sdk.drivers.sqlite.packing import ROW_BYTES, ROW_MESSAGES
from rustmq_sdk.drivers.sqlite.reading import Chunk, Position, read_chunk
from rustmq_sdk.drivers.sqlite.retention import GROUP_ACTIVE_MS, enforce, forget_producers
from rustmq_sdk.drivers.sqlite.schema import APPLICATION_ID, FORMAT_VERSION, TABLES
from rustmq_sdk.drivers.sqlite.subscription import SqliteSubscription
from rustmq_sdk.drivers.sqlite.transaction import Queries, Transaction
from rustmq_sdk.errors import PermanentDriverError
from rustmq_sdk.slots import LogSubscription, SourceRequest
from rustmq_sdk.testing.contracts.subscriber import Subscriber, log_member
from rustmq_sdk.testing.listener import RecordingListener
from rustmq_sdk.values import Checkpoint, OutgoingMessage, ProducerSequence, TopicPartition

TOPIC = "quakes"
TP = TopicPartition(TOPIC, 0)
HOUR = 3600 * 1000
FORMAT = Path(__file__).parents[2] / "docs" / "sqlite-format.md"


class Clock:
    def __init__(self) -> None:
        self.now_ms = 1_700_000_000_000

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def driver(path: Path, clock: Clock) -> AsyncIterator[SqliteDriver]:
    async with SqliteDriver(path, wall_clock_ms=clock) as driver:
        yield driver


async def append(driver: SqliteDriver, *payloads: bytes, partition: int = 0) -> list[int | None]:
    messages = [OutgoingMessage(payload) for payload in payloads]
    return [sent.offset for sent in await driver.sink().append(TOPIC, partition, messages, sequence=None)]


@asynccontextmanager
async def member_of(driver: SqliteDriver, group: str | None = "alarm") -> AsyncIterator[Subscriber[LogSubscription]]:
    request = SourceRequest(topics=[TOPIC], group=group, lease=10, revoke_budget=5)
    async with log_member(driver, request, RecordingListener(committed=group is not None), 50) as member:
        yield member


async def retain(driver: SqliteDriver, **options: Any) -> None:
    log = driver._file().path
    while await driver._file().write("admin", "retention", enforce, SqliteOptions(**options), log):
        pass


def hold(thread: DaemonThread) -> threading.Event:
    """Keeps a thread busy until the event is set."""
    gate = threading.Event()

    def wait() -> None:
        assert gate.wait(50)

    thread.submit(wait)
    return gate


def query(path: Path, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    connection = apsw.Connection(str(path))
    try:
        return connection.execute(sql, values).fetchall()
    finally:
        connection.close()


async def start_of(driver: SqliteDriver) -> int:
    async with member_of(driver, None) as reader:
        return (await reader.subscription.start_offsets([TP]))[TP]


# Rows


async def test_concurrent_appends_share_rows_and_transactions(driver: SqliteDriver, path: Path) -> None:
    await append(driver, b"first")
    gate = hold(driver._file()._writer._thread)
    answers: dict[bytes, int | None] = {}

    async def send(payload: bytes) -> None:
        (answers[payload],) = await append(driver, payload)

    async with anyio.create_task_group() as tasks:
        for number in range(50):
            tasks.start_soon(send, b"%d" % number)

        await anyio.wait_all_tasks_blocked()
        gate.set()

    assert query(path, "SELECT base, count FROM batch ORDER BY base") == [(0, 1), (1, 50)]
    async with member_of(driver) as member:
        await member.owns([TP])
        records = await member.collect(51)
        assert answers == {record.payload: record.offset for record in records[1:]}


async def test_rows_are_bounded_in_messages_and_in_bytes(driver: SqliteDriver, path: Path) -> None:
    await append(driver, *[b""] * (ROW_MESSAGES + 1))
    await append(driver, *[bytes(ROW_BYTES // 4)] * 9, bytes(3 * ROW_BYTES), b"")
    lengths = [length for (length,) in query(path, "SELECT count FROM batch ORDER BY base")]
    assert lengths == [ROW_MESSAGES, 1, 4, 4, 1, 1, 1]
    async with member_of(driver) as member:
        await member.owns([TP])
        records = await member.collect(sum(lengths))
        assert [record.offset for record in records] == list(range(sum(lengths)))

    assert integrity_check(path) == ()


async def test_large_rows_keep_their_contents_apart(driver: SqliteDriver) -> None:
    await driver.admin().create_topic(TOPIC, 2, {})
    sent = {number: [b"%d-%d " % (number, at) * 4000 for at in range(60)] for number in (0, 1)}
    for number, payloads in sent.items():
        for at in range(0, 60, 6):
            await append(driver, *payloads[at : at + 6], partition=number)

    async with member_of(driver) as member:
        await member.listener.until(lambda: len(member.listener.assignments) == 2, 10)
        while len(member.received) < 120:
            await member.fetch(max_messages=7, max_wait=10)

        for number, payloads in sent.items():
            assert member.payloads(TopicPartition(TOPIC, number)) == payloads


async def test_many_small_rows_are_fetched_in_one_piece(driver: SqliteDriver) -> None:
    for number in range(300):
        await append(driver, b"%d" % number)

    async with member_of(driver) as member:
        await member.owns([TP])
        (piece,) = await member.fetch(max_messages=300)
        assert piece.offsets == range(300)
        assert member.payloads() == [b"%d" % number for number in range(300)]
        assert piece.largest == 3


@pytest.mark.parametrize("size", [100, 10_000, 100_000])
@pytest.mark.parametrize("max_bytes", [1, 50_000, 2_500_000])
async def test_no_more_is_read_than_was_asked_for_or_is_cheap(driver: SqliteDriver, size: int, max_bytes: int) -> None:
    for _ in range(60):
        await append(driver, bytes(size))

    async with member_of(driver) as member:
        await member.owns([TP])
        await member.fetch(max_messages=1, max_bytes=max_bytes)
        (holding,) = driver_holdings(member)
        assert holding.cursor.available * size <= min(READ_AHEAD, max_bytes) + size


def driver_holdings(member: Subscriber[LogSubscription]) -> Holdings:
    assert isinstance(member.subscription, SqliteSubscription)
    return member.subscription._holdings


async def test_a_look_at_the_end_costs_the_same_however_long_the_log_is(driver: SqliteDriver, path: Path) -> None:
    steps = []
    for batches in (10, 500):
        while (await append(driver, b"x"))[0] != batches - 1:
            pass

        with apsw.Connection(str(path)) as connection:
            steps.append(0)

            def count() -> bool:
                steps[-1] += 1
                return False

            connection.set_progress_handler(count, 1)
            assert read_chunk(Queries(connection), Position(1, batches), 10, 1000) == Chunk((), 0, batches)
            connection.set_progress_handler(None)

    assert steps[0] == steps[1]


async def test_a_rest_is_served_without_asking_the_file_again(driver: SqliteDriver) -> None:
    await append(driver, *[b"%d" % number for number in range(100)])
    async with member_of(driver) as member:
        await member.owns([TP])
        await member.fetch(max_messages=10)
        gate = hold(driver._file()._reader._thread)
        with anyio.fail_after(30):
            for _ in range(9):
                await member.fetch(max_messages=10)

        gate.set()
        assert member.payloads() == [b"%d" % number for number in range(100)]


async def test_a_busy_partition_gets_what_idle_ones_leave(driver: SqliteDriver) -> None:
    await driver.admin().create_topic(TOPIC, 8, {})
    await append(driver, *[b"x"] * 1000, partition=3)
    async with member_of(driver) as member:
        await member.listener.until(lambda: len(member.listener.assignments) == 8, 10)
        await member.fetch(max_messages=500)
        await member.fetch(max_messages=500)
        assert len(member.received) >= 500


async def test_readers_do_not_wait_for_the_writer(driver: SqliteDriver, path: Path) -> None:
    await append(driver, b"x")
    other = apsw.Connection(str(path))
    other.set_busy_timeout(10_000)
    other.execute("BEGIN IMMEDIATE")
    # The lock is held until they have read.
    async with member_of(driver, None) as reader:
        await reader.owns([TP])
        await reader.collect(1)

    other.execute("ROLLBACK")
    other.close()


# Sequences


async def test_sequences_are_remembered_across_a_restart(path: Path) -> None:
    async def send(first: int, count: int) -> list[int | None]:
        async with sqlite.open(f"sqlite:///{path}") as driver:
            messages = [OutgoingMessage(b"x")] * count
            sequence = ProducerSequence(b"p", first)
            return [sent.offset for sent in await driver.sink().append(TOPIC, 0, messages, sequence=sequence)]

    assert await send(0, 2) == [0, 1]
    assert await send(2, 3) == [2, 3, 4]
    assert await send(0, 2) == [0, 1]
    assert await send(2, 3) == [2, 3, 4]
    with pytest.raises(PermanentDriverError, match="overlap"):
        await send(1, 2)

    for first in range(5, 10):
        await send(first, 1)

    with pytest.raises(PermanentDriverError, match="older"):
        await send(0, 2)

    assert query(path, "SELECT next FROM partition") == [(10,)]


async def test_two_appends_of_one_sequence_in_one_transaction_are_stored_once(driver: SqliteDriver, path: Path) -> None:
    await append(driver, b"first")
    sequence = ProducerSequence(b"p", 0)
    gate = hold(driver._file()._writer._thread)
    offsets: list[int | None] = []

    async def send() -> None:
        (sent,) = await driver.sink().append(TOPIC, 0, [OutgoingMessage(b"x")], sequence=sequence)
        offsets.append(sent.offset)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(send)
        tasks.start_soon(send)
        await anyio.wait_all_tasks_blocked()
        gate.set()

    assert offsets == [1, 1]
    assert query(path, "SELECT next FROM partition") == [(2,)]


async def test_silent_producers_are_forgotten(driver: SqliteDriver, path: Path, clock: Clock) -> None:
    sink = driver.sink()
    await sink.append(TOPIC, 0, [OutgoingMessage(b"x")], sequence=ProducerSequence(b"old", 0))
    clock.now_ms += GROUP_ACTIVE_MS + 1
    await sink.append(TOPIC, 0, [OutgoingMessage(b"x")], sequence=ProducerSequence(b"new", 0))
    await driver._file().write("admin", "retention", forget_producers)
    assert query(path, "SELECT id FROM producer") == [(b"new",)]


# Retention


async def test_old_messages_go(driver: SqliteDriver, clock: Clock) -> None:
    for _ in range(3):
        await append(driver, b"x", b"y")
        clock.now_ms += HOUR

    await retain(driver, retention_age=2.5 * 3600)
    assert await start_of(driver) == 2
    await retain(driver, retention_age=0.5 * 3600)
    assert await start_of(driver) == 6, "all are too old: the log is empty and its offsets go on"
    await append(driver, b"z")
    async with member_of(driver) as member:
        await member.owns([TP])
        (record,) = await member.collect(1)
        assert record.offset == 6


async def test_the_oldest_of_too_many_bytes_go(driver: SqliteDriver, path: Path) -> None:
    for _ in range(10):
        await append(driver, bytes(1000))

    await retain(driver, retention_bytes=3500)
    kept = query(path, "SELECT count(*), sum(length(data)) FROM batch")[0]
    assert kept[0] == 4, "a batch goes when the limit is kept without it"
    assert await start_of(driver) == 6
    assert integrity_check(path) == ()


async def test_retention_takes_many_batches_in_short_transactions(
    driver: SqliteDriver, path: Path, clock: Clock
) -> None:
    for _ in range(150):
        await append(driver, b"x")

    clock.now_ms += HOUR
    assert await driver._file().write("admin", "retention", enforce, SqliteOptions(retention_age=1), path)
    assert not await driver._file().write("admin", "retention", enforce, SqliteOptions(retention_age=1), path)
    assert await start_of(driver) == 150


async def test_a_topic_has_a_retention_of_its_own(driver: SqliteDriver, clock: Clock) -> None:
    await driver.admin().create_topic(TOPIC, 1, {"retention_age": 3600.0})
    await append(driver, b"x")
    clock.now_ms += 2 * HOUR
    await retain(driver)
    assert await start_of(driver) == 1


async def test_what_an_active_group_has_not_settled_is_spared(driver: SqliteDriver, clock: Clock) -> None:
    for number in range(4):
        await append(driver, b"%d" % number)

    async with member_of(driver) as member:
        await member.owns([TP])
        await retain(driver, retention_bytes=1)
        assert await start_of(driver) == 0, "nothing is settled yet"
        await member.subscription.commit({member.assignment(TP): Checkpoint(2)})
        clock.now_ms += HOUR
        await retain(driver, retention_age=1)
        assert await start_of(driver) == 2
        await member.collect(2)
        # Set forward by a week and more: every heartbeat seems to be that old until the next ones come.
        clock.now_ms += GROUP_ACTIVE_MS + 1
        await retain(driver, retention_age=1)
        assert await start_of(driver) == 2, "its member is there, whatever the clock says"

    await retain(driver, retention_age=1)
    assert await start_of(driver) == 2, "it was seen when it left"
    clock.now_ms += GROUP_ACTIVE_MS + 1
    await retain(driver, retention_age=1)
    assert await start_of(driver) == 4, "the group was not seen for a week"


async def test_a_group_whose_members_were_killed_holds_up_retention_for_a_week(
    driver: SqliteDriver, path: Path, clock: Clock
) -> None:
    await append(driver, b"x")
    async with member_of(driver) as member:
        await member.owns([TP])
        ((id_,),) = query(path, "SELECT id FROM member")

    # As a member is left behind that is killed: a row, and a file whose lock is free.
    left_behind = lock_path(path, id_)
    left_behind.touch()
    row = ("alarm", id_, left_behind.stat().st_ino)
    query(path, "INSERT INTO member (consumer_group, id, topics, lock) VALUES (?, ?, '[]', ?)", *row)
    clock.now_ms += HOUR
    await retain(driver, retention_age=1)
    assert await start_of(driver) == 0
    clock.now_ms += GROUP_ACTIVE_MS
    await retain(driver, retention_age=1)
    assert await start_of(driver) == 1


@pytest.mark.parametrize("there", [False, True])
async def test_without_a_member_s_file_the_clock_alone_decides_whether_its_group_is_active(
    driver: SqliteDriver, path: Path, clock: Clock, there: bool
) -> None:
    """And a file that is gone does not hold up retention for ever."""

    def retain_after_a_silence(transaction: Transaction) -> None:
        # In one transaction: no heartbeat comes in between.
        transaction.execute("UPDATE consumer_group SET seen_ms = 0")
        enforce(transaction, SqliteOptions(retention_age=1), path)

    await append(driver, b"x")
    async with member_of(driver) as member:
        await member.owns([TP])
        ((id_,),) = query(path, "SELECT id FROM member")
        if not there:
            lock_path(path, id_).unlink()

        clock.now_ms += HOUR
        await driver._file().write("admin", "retention", retain_after_a_silence)

    assert await start_of(driver) == (0 if there else 1)


async def test_other_settings_for_a_topic_that_exists_are_taken_and_said(
    driver: SqliteDriver, caplog: pytest.LogCaptureFixture
) -> None:
    admin = driver.admin()
    await admin.create_topic(TOPIC, 1, {"retention_age": 60, "retention_bytes": 1000})
    await admin.create_topic(TOPIC, 1, {"retention_age": 60})
    assert not caplog.records

    await admin.create_topic(TOPIC, 1, {"retention_age": 30, "retention_bytes": 1000})
    (record,) = caplog.records
    assert record.__dict__["event"] == "topic_settings_changed"
    assert record.getMessage().endswith("other settings from now on: retention_age=30 (was 60)")


async def test_who_gives_no_settings_leaves_those_of_a_topic_that_exists(
    driver: SqliteDriver, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    await driver.admin().create_topic(TOPIC, 1, {"retention_age": 60})
    await driver.admin().create_topic(TOPIC, 1, {})
    settings = await driver._file().read(
        "admin", "topics", lambda queries: queries.row("SELECT retention_age, retention_bytes FROM topic")
    )
    assert settings == (60.0, None)
    assert not caplog.records


async def test_retention_that_overtakes_is_named_to_the_group(driver: SqliteDriver, clock: Clock) -> None:
    for number in range(4):
        await append(driver, b"%d" % number)
        clock.now_ms += HOUR

    async with member_of(driver) as member:
        await member.owns([TP])
        await retain(driver, retention_age=2.5 * 3600, retention_overtakes=True)
        await member.collect(2)
        (gone,) = [gone for piece in member.pieces for gone in piece.gone]
        assert (gone.tp, gone.first, gone.end) == (TP, 0, 2)


async def test_retention_runs_by_itself(path: Path, clock: Clock) -> None:
    options = SqliteOptions(retention_age=60)
    async with SqliteDriver(path, options, wall_clock_ms=clock) as driver:
        await append(driver, b"old")
        await driver._file()._writer._thread.run(int)  # what follows a commit is over now
        clock.now_ms += HOUR
        driver._file()._writer._housekeeping._retention_at = 0.0
        await append(driver, b"new")
        await append(driver, b"and what follows sees it done")
        assert await start_of(driver) == 1


# Several drivers, and the file itself


async def test_two_drivers_on_one_file_wake_each_other_at_once(driver: SqliteDriver, path: Path) -> None:
    async with sqlite.open(f"sqlite:///{path}") as second, member_of(second, None) as reader:
        await append(driver, b"1")
        await reader.owns([TP])
        await reader.collect(1)
        second._file().watcher.stop()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(reader.collect, 2)
            await anyio.wait_all_tasks_blocked()
            await append(driver, b"2")

        assert reader.payloads() == [b"1", b"2"]


async def test_the_log_is_moved_into_the_file_when_it_is_closed(path: Path) -> None:
    async with sqlite.open(f"sqlite:///{path}") as driver, member_of(driver, None) as reader:
        await append(driver, bytes(100_000))
        await reader.owns([TP])
        await reader.collect(1)

    assert sorted(each.name for each in path.parent.iterdir()) == ["log.db"]
    assert query(path, "PRAGMA application_id") == [(APPLICATION_ID,)]
    assert query(path, "PRAGMA user_version") == [(FORMAT_VERSION,)]
    assert query(path, "PRAGMA journal_mode") == [("wal",)]


async def test_the_write_ahead_log_stays_short(driver: SqliteDriver, path: Path) -> None:
    for _ in range(60):
        await append(driver, bytes(500_000))

    assert wal_size(path) < 16 * 1024 * 1024


def wal_size(path: Path) -> int:
    return path.with_name(path.name + "-wal").stat().st_size


def test_sqlite_is_safe_for_several_writers() -> None:
    assert tuple(map(int, apsw.sqlite_lib_version().split("."))) >= SAFE_SQLITE


def test_the_format_page_has_every_table_and_column_and_number() -> None:
    page = FORMAT.read_text(encoding="utf-8")
    for name in re.findall(r"^(?:CREATE TABLE|    )(?: )?([a-z_]+)", TABLES, re.MULTILINE):
        assert f"`{name}`" in page, name

    assert f"`{APPLICATION_ID:#x}`" in page
    assert f"`user_version` {FORMAT_VERSION}" in page
