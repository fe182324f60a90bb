"""The embedded log on files that are not what they should be, and on disks that fail."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from urllib.parse import urlencode

import anyio
import apsw
import pytest

from rustmq_sdk.drivers import sqlite
from rustmq_sdk.drivers.sqlite import SqliteDriver, integrity_check
from rustmq_sdk.drivers.sqlite.failures import CommitFailed
from rustmq_sdk.drivers.sqlite.schema import APPLICATION_ID, FORMAT_VERSION
from rustmq_sdk.errors import (
    ConfigurationError,
    ConsumerStateError,
    OutcomeUnknown,
    PermanentDriverError,
    RustMQError,
    TransientDriverError,
)
from rustmq_sdk.slots import SourceRequest
from rustmq_sdk.testing.contracts.subscriber import Subscriber, log_member
from rustmq_sdk.testing.listener import RecordingListener
from rustmq_sdk.values import OutgoingMessage, ProducerSequence, TopicPartition

TP = TopicPartition("quakes", 0)
NOBODY = 65534


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


def driver_of(path: Path, **options: str) -> SqliteDriver:
    return sqlite.open(f"sqlite:///{path}?{urlencode(options)}")


async def append(driver: SqliteDriver, *payloads: bytes, first: int | None = None) -> list[int | None]:
    sequence = None if first is None else ProducerSequence(b"producer", first)
    messages = [OutgoingMessage(payload) for payload in payloads]
    return [sent.offset for sent in await driver.sink().append(TP.topic, 0, messages, sequence=sequence)]


@asynccontextmanager
async def reader_of(driver: SqliteDriver) -> AsyncIterator[Subscriber]:  # type: ignore[type-arg]
    request = SourceRequest(topics=[TP.topic], group=None, lease=10, revoke_budget=5)
    async with log_member(driver, request, RecordingListener(committed=False), 10) as member:
        await member.owns([TP])
        yield member


async def contents(path: Path, count: int) -> list[bytes | None]:
    async with driver_of(path) as driver, reader_of(driver) as member:
        await member.collect(count)
        await member.fetch(max_wait=0.0)
        return member.payloads()


async def refused(path: Path, kind: type[RustMQError], *words: str) -> None:
    with pytest.raises(kind) as refusal:
        async with driver_of(path):
            pass

    for word in (str(path), *words):
        assert word in str(refusal.value)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    other = apsw.Connection(str(path))
    other.set_busy_timeout(10_000)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


async def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    await refused(tmp_path / "none" / "log.db", ConfigurationError, str(tmp_path / "none"), "Create it")


async def test_a_directory_is_not_a_log(tmp_path: Path) -> None:
    await refused(tmp_path, ConfigurationError, "directory")


async def test_a_file_that_is_no_database_is_left_alone(path: Path) -> None:
    write(path, b"dear diary, " * 500)
    await refused(path, ConfigurationError, "not an SQLite database")
    assert read(path) == b"dear diary, " * 500


@pytest.mark.parametrize("application_id", [0, 4711])
async def test_another_applications_database_is_left_alone(path: Path, application_id: int) -> None:
    with apsw.Connection(str(path)) as connection:
        connection.execute("CREATE TABLE invoice (id)")
        connection.pragma("application_id", application_id)

    connection.close()
    before = read(path)
    await refused(path, ConfigurationError, "another application")
    assert read(path) == before


async def test_a_file_of_a_later_release_is_left_alone(path: Path) -> None:
    connection = apsw.Connection(str(path))
    connection.pragma("application_id", APPLICATION_ID)
    connection.pragma("user_version", FORMAT_VERSION + 1)
    connection.close()
    await refused(path, ConfigurationError, f"format {FORMAT_VERSION + 1}", "Upgrade")


async def test_a_read_only_file_is_a_permanent_error() -> None:
    directory = Path(tempfile.mkdtemp())
    path = directory / "log.db"
    try:
        async with driver_of(path) as driver:
            await append(driver, b"x")

        with unprivileged(path):
            await refused(path, PermanentDriverError, "writable")
    finally:
        shutil.rmtree(directory)


@contextmanager
def unprivileged(path: Path) -> Iterator[None]:
    """The file and its directory may be read only; permissions mean nothing to root."""
    path.chmod(0o444)
    path.parent.chmod(0o555)
    if root := os.geteuid() == 0:
        os.seteuid(NOBODY)

    try:
        yield
    finally:
        if root:
            os.seteuid(0)

        path.parent.chmod(0o755)


async def test_a_full_disk_is_transient_and_nothing_of_it_is_acknowledged(path: Path) -> None:
    async with driver_of(path) as driver:
        assert await append(driver, b"before") == [0]
        connection = driver._file()._writer._connection
        assert connection is not None
        limit = connection.pragma("max_page_count")
        connection.pragma("max_page_count", connection.pragma("page_count") + 2)
        with pytest.raises(TransientDriverError, match="disk is full") as refusal:
            await append(driver, bytes(500_000))

        assert str(path) in str(refusal.value)
        assert refusal.value.retry_after
        connection.pragma("max_page_count", limit)
        assert await append(driver, b"after") == [1]

    assert await contents(path, 2) == [b"before", b"after"]


async def test_one_append_too_many_harms_no_other_in_its_group(path: Path) -> None:
    async with driver_of(path) as driver:
        await append(driver, b"before")
        connection = driver._file()._writer._connection
        assert connection is not None
        connection.pragma("max_page_count", connection.pragma("page_count") + 6)
        outcomes: dict[int, object] = {}

        async def attempt(size: int) -> None:
            try:
                outcomes[size] = await append(driver, bytes(size))
            except TransientDriverError as error:
                outcomes[size] = error

        async with anyio.create_task_group() as tasks:
            for size in (1, 500_000, 2):
                tasks.start_soon(attempt, size)

        assert isinstance(outcomes[500_000], TransientDriverError)
        assert sorted([outcomes[1], outcomes[2]]) == [[1], [2]]  # type: ignore[type-var]


async def test_a_locked_file_is_transient(path: Path) -> None:
    async with driver_of(path, busy_timeout="0.01") as driver:
        await append(driver, b"before")
        with locked(path):
            with pytest.raises(TransientDriverError, match="busy_timeout") as refusal:
                await append(driver, b"locked out")

            assert str(path) in str(refusal.value)
            assert refusal.value.retry_after

        assert await append(driver, b"after") == [1]


async def test_closing_does_not_wait_for_a_lock(path: Path) -> None:
    outcome: list[Exception] = []

    async def attempt(driver: SqliteDriver) -> None:
        try:
            await append(driver, b"locked out")
        except TransientDriverError as error:
            outcome.append(error)

    async with anyio.create_task_group() as tasks, driver_of(path, busy_timeout="60") as driver:
        await append(driver, b"before")
        with locked(path), anyio.fail_after(30):
            tasks.start_soon(attempt, driver)
            await anyio.wait_all_tasks_blocked()
            await driver.__aexit__(None, None, None)

    assert len(outcome) == 1
    assert await contents(path, 1) == [b"before"]


async def test_a_closed_log_says_so(path: Path) -> None:
    driver = driver_of(path)
    with pytest.raises(ConsumerStateError, match="context manager"):
        driver.sink()

    async with driver:
        sink = driver.sink()

    with pytest.raises(ConsumerStateError, match="closed"):
        await sink.append(TP.topic, 0, [OutgoingMessage(b"late")], sequence=None)


async def test_a_damaged_batch_is_handed_over_as_broken(path: Path) -> None:
    async with driver_of(path) as driver:
        await append(driver, b"first" * 10)
        await append(driver, b"broken 1" * 10, b"broken 2" * 10)
        await append(driver, b"last" * 10)

    overwrite(path, b"broken 2" * 10, b"BROKEN 2" * 10)
    async with driver_of(path) as driver, reader_of(driver) as member:
        await member.fetch_until(lambda: len(member.received) == 2)
        broken = [broken for piece in member.pieces for broken in piece.broken]
        assert [each.offset for each in broken] == [1, 2]
        assert b"BROKEN 2" in broken[0].raw
        assert "checksum" in str(broken[0].error)
        again = await member.subscription.read(member.assignment(TP), [0, 1, 3])
        assert (list(again.offsets), [each.offset for each in again.broken]) == ([0, 3], [1])

    assert await contents_unchecked(path) == [b"first" * 10, b"broken 1" * 10, b"BROKEN 2" * 10, b"last" * 10]
    assert integrity_check(path) == ("quakes[0]: the checksum of the batch at offset 1 is wrong: the file was damaged",)


async def contents_unchecked(path: Path) -> list[bytes | None]:
    async with driver_of(path, check_crcs="false") as driver, reader_of(driver) as member:
        await member.collect(4)
        return member.payloads()


async def test_a_missing_batch_is_named_and_passed(path: Path) -> None:
    async with driver_of(path) as driver:
        for payload in (b"0", b"1", b"2"):
            await append(driver, payload)

    with apsw.Connection(str(path)) as connection:
        connection.execute("DELETE FROM batch WHERE base > 0")

    connection.close()
    async with driver_of(path) as driver, reader_of(driver) as member:
        await member.fetch_until(lambda: bool(member.pieces) and member.pieces[-1].next_offset == 3)
        assert member.payloads() == [b"0"]
        (gone,) = [gone for piece in member.pieces for gone in piece.gone]
        assert (gone.first, gone.end) == (1, 3)
        assert "rustmq check" in gone.reason

    assert integrity_check(path) == ("quakes[0]: the batches end at offset 1, the partition at 3",)


async def test_a_corrupt_page_is_a_permanent_error_that_names_the_check(path: Path) -> None:
    async with driver_of(path) as driver:
        for _ in range(50):
            await append(driver, bytes(10_000))

    with apsw.Connection(str(path)) as connection:
        root = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'batch_by_base'").get
        size = connection.pragma("page_size")

    connection.close()
    with path.open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\xff" * size)

    async with driver_of(path) as driver:
        with pytest.raises(PermanentDriverError, match="rustmq check") as refusal:
            async with reader_of(driver) as member:
                await member.collect(50)

        assert str(path) in str(refusal.value)

    assert any("SQLite" in problem for problem in integrity_check(path))


async def test_a_sound_file_passes_the_check_while_it_is_in_use(path: Path) -> None:
    async with driver_of(path) as driver:
        await append(driver, b"1", b"2")
        assert integrity_check(path) == ()

    with pytest.raises(ConfigurationError, match="no such file"):
        integrity_check(path.parent / "none.db")


@pytest.mark.parametrize(("name", "status"), [("log.db", 0), ("none.db", 1)])
def test_the_check_can_be_run_from_a_shell(path: Path, name: str, status: int) -> None:
    anyio.run(append_one, path)
    command = [sys.executable, "-m", "rustmq_sdk.drivers.sqlite", str(path.with_name(name))]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert run.returncode == status, run.stderr
    assert ("sound" if status == 0 else "no such file") in run.stdout


async def append_one(path: Path) -> None:
    async with driver_of(path) as driver:
        await append(driver, b"one")


def read(path: Path) -> bytes:
    return path.read_bytes()


def write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def overwrite(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new))


FAILING_COMMIT = """
    import resource, sys, anyio
    from pathlib import Path
    from rustmq_sdk.drivers import sqlite
    from rustmq_sdk.errors import OutcomeUnknown, TransientDriverError
    from rustmq_sdk.values import OutgoingMessage, ProducerSequence

    path = Path(sys.argv[1])

    async def main():
        async with sqlite.open(f"sqlite:///{path}") as driver:
            async def append(payload, first):
                sequence = None if first is None else ProducerSequence(b"producer", first)
                sent = await driver.sink().append("quakes", 0, [OutgoingMessage(payload)], sequence=sequence)
                print(sent[0].offset)

            await append(b"before", 0)
            unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, unlimited[1]))  # a few pages
            for first in (1, None):
                try:
                    await append(bytes(100_000), first)
                except (OutcomeUnknown, TransientDriverError) as error:
                    print(type(error).__name__, str(path) in str(error))

            resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
            await append(b"after", 1)
            await append(b"after", 1)

    anyio.run(main)
"""


def test_an_error_at_commit_is_looked_into(path: Path) -> None:
    program = textwrap.dedent(FAILING_COMMIT)
    command = [sys.executable, "-c", program, str(path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert run.stdout.splitlines() == ["0", "TransientDriverError True", f"{OutcomeUnknown.__name__} True", "1", "1"], (
        run.stderr
    )
    assert anyio.run(contents, path, 2) == [b"before", b"after"]


async def test_a_lost_answer_is_found_by_its_sequence(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with driver_of(path) as driver:
        await append(driver, b"before", first=0)
        writer = driver._file()._writer
        commit = writer._commit

        def commit_and_fail(connection: apsw.Connection) -> None:
            monkeypatch.setattr(writer, "_commit", commit)
            commit(connection)
            writer._disconnect()
            raise CommitFailed("the disk said so")

        await writer._thread.run(int)  # what follows a commit is over now
        monkeypatch.setattr(writer, "_commit", commit_and_fail)
        assert await append(driver, b"lost", b"answer", first=1) == [1, 2]
        assert await append(driver, b"after", first=3) == [3]
        await writer._thread.run(int)  # what follows a commit is over now
        monkeypatch.setattr(writer, "_commit", commit_and_fail)
        with pytest.raises(OutcomeUnknown, match="producer"):
            await append(driver, b"no sequence")


KILLED = """
    import sys, anyio
    from rustmq_sdk.drivers import sqlite
    from rustmq_sdk.values import OutgoingMessage

    async def main():
        async with sqlite.open(f"sqlite:///{sys.argv[1]}") as driver:
            async def write():
                while True:
                    (sent,) = await driver.sink().append("quakes", 0, [OutgoingMessage(b"x" * 100)], sequence=None)
                    print(sent.offset, flush=True)

            async with anyio.create_task_group() as tasks:
                for _ in range(4):
                    tasks.start_soon(write)

    anyio.run(main)
"""


def test_what_was_acknowledged_survives_a_kill(path: Path) -> None:
    acknowledged = -1
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(path)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        while acknowledged < 200:
            acknowledged = max(acknowledged, int(writer.stdout.readline()))

        writer.kill()

    assert len(anyio.run(contents, path, acknowledged + 1)) > acknowledged
    assert integrity_check(path) == ()
