"""What the writer of the embedded log does between its transactions, where it cannot be done."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import apsw
import pytest

from rustmq_sdk.drivers.sqlite import housekeeping
from rustmq_sdk.drivers.sqlite.database import BusyHandler
from rustmq_sdk.drivers.sqlite.failures import CommitFailed, FileGone
from rustmq_sdk.drivers.sqlite.housekeeping import CHECKPOINT_PAGES, RETENTION_SECONDS, Housekeeping
from rustmq_sdk.drivers.sqlite.options import SqliteOptions


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


class Disk(apsw.Connection):
    """Of a log that is open, on a disk that fails."""

    tried = 0

    def wal_checkpoint(self, dbname: str | None = None, mode: int = 0) -> tuple[int, int]:
        self.tried += 1
        raise apsw.FullError("database or disk is full")


@pytest.mark.parametrize("error", [apsw.FullError("full"), CommitFailed("disk I/O error"), FileGone("gone")])
def test_retention_that_fails_is_put_off_and_said_to_nobody(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(housekeeping, "time", clock)
    tried: list[float] = []

    def write(_change: Any) -> bool:
        tried.append(clock.now)
        raise error

    keeping = Housekeeping(Path("log.db"), SqliteOptions(), write, BusyHandler(1.0, threading.Event()))
    connection = apsw.Connection(":memory:")
    for clock.now in (100.0, 100.1, 100.0 + RETENTION_SECONDS - 1, 100.0 + RETENTION_SECONDS):
        keeping.after_commit(connection)

    assert tried == [100.0, 100.0 + RETENTION_SECONDS], "not after each commit"


def test_a_checkpoint_that_fails_is_put_off_until_the_log_has_grown_as_much_again() -> None:
    keeping = Housekeeping(Path("log.db"), SqliteOptions(), lambda _: False, BusyHandler(1.0, threading.Event()))
    disk = Disk(":memory:")
    tried = []
    for pages in (CHECKPOINT_PAGES - 1, CHECKPOINT_PAGES, CHECKPOINT_PAGES + 1, 2 * CHECKPOINT_PAGES):
        keeping._grown(disk, "main", pages)
        keeping.after_commit(disk)
        tried.append(disk.tried)

    assert tried == [0, 1, 1, 2]
