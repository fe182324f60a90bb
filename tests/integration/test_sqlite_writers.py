"""Several who write one embedded log: nobody waits without bound, and the write-ahead log has bounds as well.

How long they wait is measured by ``bench/bench_writers.py``, and no test depends on it: beyond the bounds here there is
something wrong on any machine.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import anyio
import apsw
import pytest

from rustmq_sdk.drivers import sqlite
from rustmq_sdk.drivers.sqlite import SqliteDriver, housekeeping, integrity_check, retention
from rustmq_sdk.drivers.sqlite.database import BusyHandler
from rustmq_sdk.drivers.sqlite.options import SqliteOptions
from rustmq_sdk.drivers.sqlite.transaction import Transaction
from rustmq_sdk.values import OutgoingMessage
from tests.kafka.awake import Awake

TOPIC = "quakes"
MIB = 1024 * 1024
BENCH = Path(__file__).parents[2] / "bench" / "bench_writers.py"
PATIENCE = 30.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


@pytest.fixture
def early(monkeypatch: pytest.MonkeyPatch) -> None:
    """What happens at 4 MiB and at 64 happens at 1/4 MiB and at 2."""
    monkeypatch.setattr(housekeeping, "CHECKPOINT_PAGES", housekeeping.CHECKPOINT_PAGES // 16)
    monkeypatch.setattr(housekeeping, "TRUNCATE_PAGES", housekeeping.TRUNCATE_PAGES // 32)


def wal_size(path: Path) -> int:
    return Path(f"{path}-wal").stat().st_size


async def write(driver: SqliteDriver, count: int, size: int = 50_000) -> None:
    for _ in range(count):
        await driver.sink().append(TOPIC, 0, [OutgoingMessage(bytes(size))], sequence=None)


@contextmanager
def reading(path: Path) -> Iterator[apsw.Connection]:
    """Somebody reads in a transaction that does not end, as a backup does."""
    connection = apsw.Connection(str(path))
    begin_reading(connection)
    try:
        yield connection
    finally:
        connection.close()


def begin_reading(connection: apsw.Connection) -> None:
    connection.execute("BEGIN")
    connection.execute("SELECT count(*) FROM batch").fetchall()


@pytest.mark.usefixtures("early")
async def test_the_write_ahead_log_is_bounded_while_several_write(path: Path) -> None:
    async with sqlite.open(f"sqlite:///{path}") as first, sqlite.open(f"sqlite:///{path}") as second:
        longest = 0

        async def write_and_look(driver: SqliteDriver) -> None:
            nonlocal longest
            for _ in range(40):
                await write(driver, 5)
                longest = max(longest, wal_size(path))

        async with anyio.create_task_group() as tasks:
            for driver in (first, second):
                tasks.start_soon(write_and_look, driver)

    # 20 MB were written: 2 MiB until it is started over, and as much again for what is written until that succeeds.
    assert longest < 6 * MIB


@pytest.mark.usefixtures("early")
async def test_nobody_waits_for_a_slow_reader_and_the_log_shrinks_after_it(path: Path) -> None:
    async with sqlite.open(f"sqlite:///{path}?busy_timeout=60") as driver:
        await write(driver, 1)
        with reading(path) as connection, anyio.fail_after(PATIENCE):
            await write(driver, 100)
            for _ in range(30):  # and of one who is quick, and always there
                connection.execute("COMMIT")
                begin_reading(connection)
                await write(driver, 1)

            assert wal_size(path) > 4 * MIB, "nothing can be done about it meanwhile"

        await write(driver, 20)
        await driver._file()._writer._thread.run(int)  # what follows a commit is over now
        assert wal_size(path) < 2 * MIB


async def test_who_met_another_writer_leaves_room_for_him(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    met = False
    gaps: list[float] = []
    monkeypatch.setattr(BusyHandler, "used_within", lambda handler, seconds: met)
    monkeypatch.setattr(housekeeping, "time", SimpleNamespace(monotonic=time.monotonic, sleep=gaps.append))
    async with sqlite.open(f"sqlite:///{path}") as driver:
        await write(driver, 3)
        await driver._file()._writer._thread.run(int)  # what follows a commit is over now
        assert gaps == [], "alone nobody loses time"
        met = True
        await write(driver, 3)
        await driver._file()._writer._thread.run(int)

    assert gaps == [housekeeping.GAP_SECONDS] * 3


def stored(transaction: Transaction) -> int:
    return int(transaction.rows("SELECT total(length(data)) FROM batch")[0][0])


async def test_retention_deletes_a_little_at_a_time_and_all_in_the_end(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    enforce = retention.enforce

    def counting(transaction: Transaction, options: SqliteOptions, log: Path) -> bool:
        before = stored(transaction)
        more = enforce(transaction, options, log)
        sizes.append(before - stored(transaction))
        return more

    async with sqlite.open(f"sqlite:///{path}") as driver:
        await write(driver, 25, 400_000)

    monkeypatch.setattr(housekeeping, "enforce", counting)
    monkeypatch.setattr(retention, "BYTES_AT_ONCE", 2 * MIB)
    async with sqlite.open(f"sqlite:///{path}?retention_bytes=100000") as driver:
        for _ in range(20):
            await write(driver, 1)

        await driver._file()._writer._thread.run(int)

    assert 0 < max(sizes) < 2 * MIB
    assert sum(sizes) > 9_000_000
    assert integrity_check(path) == ()


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_everybody_gets_on_beside_processes_that_write_without_a_pause() -> None:
    command = [sys.executable, str(BENCH), "--seconds", "4", "--floods", "3", "--check", "--json"]
    began = time.monotonic()
    with Awake() as clock:
        run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)

    stood_still = time.monotonic() - began - clock.seconds
    result = json.loads(run.stdout)
    assert result["problems"] == []
    assert result["wal_longest"] < 100 * MIB
    for process in result["processes"]:
        assert process["calls"] > 5, process
        assert process["max"] < 4000 + 1000 * stood_still, f"busy_timeout is 4 s: {process}"
