"""The integrity check: it finds what was damaged on purpose, says it in words, and finds nothing in a log in use."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import apsw
import pytest

import rustmq_sdk
from rustmq_sdk.drivers import sqlite
from rustmq_sdk.drivers.sqlite import housekeeping, integrity, integrity_check
from rustmq_sdk.drivers.sqlite.__main__ import main
from rustmq_sdk.errors import PermanentDriverError
from rustmq_sdk.values import OutgoingMessage, ProducerSequence
from tests.integration.others import PATIENCE

TOPIC, GROUP = "quakes", "alarm"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A log with 40 messages in ten batches of each of two partitions, and a group that has read half of it."""
    path = tmp_path / "log.db"
    anyio.run(fill, path)
    return path


async def fill(path: Path) -> None:
    async with rustmq_sdk.Client(f"sqlite:///{path}") as client:
        await client.create_topic(TOPIC, partitions=2)
    async with sqlite.open(f"sqlite:///{path}") as driver:
        for number in range(20):
            messages = [OutgoingMessage(b"%d" % number * 50)] * 4
            await driver.sink().append(TOPIC, number % 2, messages, sequence=ProducerSequence(b"me", number * 4))

    async with rustmq_sdk.Client(f"sqlite:///{path}") as client, client.consumer(TOPIC, group=GROUP) as consumer:
        for _ in range(40):
            await (await consumer.receive(timeout=PATIENCE)).ack()

        await consumer.commit()


@contextmanager
def opened(path: Path) -> Iterator[apsw.Connection]:
    connection = apsw.Connection(str(path))
    yield connection
    connection.close()


def batch(base: int) -> str:
    """Of the first partition."""
    return f"partition = (SELECT id FROM partition WHERE number = 0) AND base = {base}"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (f"UPDATE batch SET crc = crc + 1 WHERE {batch(8)}", "[0]: the checksum of the batch at offset 8"),
        (f"DELETE FROM batch WHERE {batch(8)}", "[0]: the offsets 8 to 11 are missing"),
        (f"DELETE FROM batch WHERE {batch(0)}", "[0]: the offsets 0 to 3 are missing"),
        (f"DELETE FROM batch WHERE {batch(36)}", "[0]: the batches end at offset 36, the partition at 40"),
        (f"UPDATE batch SET count = 5 WHERE {batch(8)}", "[0]: the batch at offset 12 begins before the end"),
        (f"UPDATE batch SET count = 5 WHERE {batch(8)}", "[0]: the batch at offset 8 has columns of"),
        (f"UPDATE batch SET count = 3 WHERE {batch(8)}", "[0]: the offsets 11 to 11 are missing"),
        (f"UPDATE batch SET total = total + 1 WHERE {batch(8)}", "[0]: the sums of the batch at offset 8"),
        (f"UPDATE batch SET newest_ms = 0 WHERE {batch(8)}", "[0]: the sums of the batch at offset 8"),
        ("UPDATE partition SET total = total + 1 WHERE number = 0", "the partition counts"),
        ("UPDATE partition SET next = 41 WHERE number = 0", "[0]: the batches end at offset 40, the partition at 41"),
        ("UPDATE partition SET start = 8 WHERE number = 0", "[0]: the batch at offset 4 lies before the start 8"),
        ("UPDATE topic SET partitions = 3", "topic 'quakes' should have 3 partition(s), and has 2"),
        ("UPDATE partition SET number = 7 WHERE number = 1", "and has 2, numbered below 8"),
        ("DELETE FROM topic", "belongs to no topic"),
        ("DELETE FROM partition WHERE number = 1", "10 batch(es) belong to the partition id 2, which does not exist"),
        ("DELETE FROM partition WHERE number = 1", "1 producer(s) are remembered for the partition id 2"),
        ("DELETE FROM partition WHERE number = 1", "group 'alarm' has a claim to the partition id 2"),
        ("DELETE FROM consumer_group", "group 'alarm' has members or claims, and is not in the table of groups"),
        (
            "UPDATE claim SET owner = x'ab'",
            "quakes[1] is claimed in group 'alarm' by the member AB, which does not exist",
        ),
        ("UPDATE claim SET position = 41", "group 'alarm' has committed offset 41 of quakes[0], which ends at 40"),
        ("UPDATE claim SET position = -1", "group 'alarm' has committed offset -1 of quakes[0]"),
    ],
)
def test_it_finds(path: Path, damage: str, said: str) -> None:
    assert integrity_check(path) == ()
    with opened(path) as connection:
        connection.execute(damage)

    problems = integrity_check(path)
    assert any(said in problem for problem in problems), problems


def test_it_finds_a_damaged_page(path: Path) -> None:
    with opened(path) as connection:
        page = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'batch_by_base'").get
        size = connection.pragma("page_size")

    with path.open("r+b") as file:
        file.seek((page - 1) * size + size // 2)
        file.write(bytes(size // 2))

    assert any(problem.startswith("SQLite: ") for problem in integrity_check(path))


@pytest.mark.parametrize(
    ("size", "said"), [(8192, "its 8,192 bytes are fewer"), (9000, "breaks off at byte 9,000, inside")]
)
def test_a_file_that_was_cut_off_is_a_finding(path: Path, size: int, said: str) -> None:
    os.truncate(path, size)
    (problem,) = integrity_check(path)
    assert problem.startswith("SQLite: database disk image is malformed; ")
    assert said in problem


async def test_who_cannot_open_a_damaged_file_is_told_how_to_look_at_it(path: Path) -> None:
    os.truncate(path, 9000)
    with pytest.raises(PermanentDriverError, match="rustmq check FILE"):
        await rustmq_sdk.Client(f"sqlite:///{path}").__aenter__()


def test_both_commands_say_the_same(path: Path) -> None:
    with opened(path) as connection:
        connection.execute("UPDATE claim SET position = 99 WHERE partition = 1")

    said = set()
    for command in (["rustmq_sdk.drivers.sqlite"], ["rustmq_sdk.cli", "check"]):
        run = subprocess.run(
            [sys.executable, "-m", *command, str(path), str(path.with_name("nothing.db"))],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        assert run.returncode == 1, run.stderr
        said.add(run.stdout)

    (lines,) = said
    assert f"{path}: group 'alarm' has committed offset 99 of quakes[0], which ends at 40" in lines
    assert "there is no such file" in lines, "one that cannot be looked at does not keep the others from it"


async def test_it_finds_nothing_in_a_log_in_use(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While messages are sent, handled and deleted, and topics come and go."""
    monkeypatch.setattr(integrity, "BATCHES_AT_ONCE", 2)
    monkeypatch.setattr(housekeeping, "RETENTION_SECONDS", 0.0)
    url = f"sqlite:///{path}?retention_bytes=2000"
    async with rustmq_sdk.Client(url) as client, client.producer() as producer, anyio.create_task_group() as tasks:

        async def use() -> None:
            async with client.consumer(TOPIC, group=GROUP, commit_interval=0.01) as consumer:
                for number in range(100_000):
                    await producer.send(TOPIC, b"%d" % number * 100)
                    await (await consumer.receive(timeout=PATIENCE)).ack()
                    if number % 20 == 0:
                        await client.create_topic("passing", partitions=3)
                        await producer.send("passing", b"by")
                        await client.delete_topic("passing")

        tasks.start_soon(use)
        with anyio.fail_after(PATIENCE):
            checks = 0
            while checks < 15 or not deleted(path):
                assert await anyio.to_thread.run_sync(integrity_check, path) == ()
                checks += 1

        tasks.cancel_scope.cancel()


def deleted(path: Path) -> bool:
    """Whether retention has come as far as to what was sent meanwhile."""
    with opened(path) as connection:
        return bool(connection.execute("SELECT max(start) > 60 FROM partition").get)


@pytest.mark.parametrize(("arguments", "code"), [([], 2), (["--help"], 0), (["-h"], 0), (["--what"], 2)])
def test_the_module_says_how_it_is_called(
    arguments: list[str], code: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    with pytest.raises(SystemExit) as ended:
        main(arguments)

    assert ended.value.code == code
    written = capsys.readouterr()
    said, silent = (written.err, written.out) if code else (written.out, written.err)
    assert said.startswith("usage: python -m rustmq_sdk.drivers.sqlite [-h] FILE [FILE ...]")
    assert silent == ""
