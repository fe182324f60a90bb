"""What the writer does between its transactions: the write-ahead log is kept short, old messages are deleted."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw

from rustmq_sdk.drivers.sqlite.database import BusyHandler, Connection
from rustmq_sdk.drivers.sqlite.failures import CommitFailed, FileGone
from rustmq_sdk.drivers.sqlite.options import SqliteOptions
from rustmq_sdk.drivers.sqlite.retention import enforce, forget_producers
from rustmq_sdk.drivers.sqlite.schema import PAGE_SIZE
from rustmq_sdk.drivers.sqlite.transaction import Transaction

CHECKPOINT_PAGES = 4 * 1024 * 1024 // PAGE_SIZE
"""How much the write-ahead log grows between two attempts to move it into the database: as much as by SQLite's own
default of 1,000 small pages. A sync takes three times as long while the file still grows as when it is written over."""

TRUNCATE_PAGES = 64 * 1024 * 1024 // PAGE_SIZE
"""Other writers, and readers that overlap, keep the write-ahead log from starting over. Above this they are made to
wait for a moment."""

TRUNCATE_SECONDS = 0.02
"""How long that moment is: nobody writes in it. A reader that takes longer, as a backup does, has the log grow."""

SHARED_SECONDS = 1.0
"""Who met another writer not longer ago than this leaves room for him."""

GAP_SECONDS = 0.0015
"""How much room: whoever waits tries every millisecond, and finds it. Without it a writer that always has more to write
takes the lock back before anybody tried."""

RETENTION_SECONDS = 10.0
"""How often to look for messages to delete, while anything is written (heartbeats are)."""


class Housekeeping:
    """Belongs to the writer's thread.

    Args:
        log: the file.
        options: retention.
        write: runs a change in a transaction of its own.
        busy_handler: the connection's, which knows of other writers.
    """

    def __init__(
        self,
        log: Path,
        options: SqliteOptions,
        write: Callable[[Callable[[Transaction], Any]], Any],
        busy_handler: BusyHandler,
    ) -> None:
        self._log = log
        self._options = options
        self._write = write
        self._busy_handler = busy_handler
        self._pages = 0
        self._checkpoint_at = CHECKPOINT_PAGES
        self._retention_at = 0.0

    def attach(self, connection: Connection) -> None:
        """Has SQLite tell how long the write-ahead log is after each commit."""
        connection.set_wal_hook(self._grown)

    def after_commit(self, connection: Connection) -> None:
        """Does what is due.

        An error puts it off and is told to nobody: nothing of this is owed to a caller, and what is really wrong with
        the file the next transaction will say to whoever asked for it.
        """
        try:
            if self._pages >= self._checkpoint_at:
                self._checkpoint(connection)

            if time.monotonic() >= self._retention_at:
                more = self._write(self._retain)
                self._retention_at = time.monotonic() + (0 if more else RETENTION_SECONDS)
        except (apsw.Error, CommitFailed, FileGone):
            self._retention_at = time.monotonic() + RETENTION_SECONDS
            self._checkpoint_at = self._pages + CHECKPOINT_PAGES

        if self._busy_handler.used_within(SHARED_SECONDS):
            time.sleep(GAP_SECONDS)

    def _retain(self, transaction: Transaction) -> bool:
        more = enforce(transaction, self._options, self._log)
        if not more:
            forget_producers(transaction)

        return more

    def _grown(self, _connection: Connection, _database: str, pages: int) -> int:
        if pages < self._pages:  # somebody has started the log over
            self._checkpoint_at = CHECKPOINT_PAGES

        self._pages = pages
        return apsw.SQLITE_OK

    def _checkpoint(self, connection: Connection) -> None:
        # This one holds up nobody, and moves what no reader's snapshot is in the way of.
        logged, moved = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        # All moved: the next transaction starts the log over, and the count with it.
        self._checkpoint_at = CHECKPOINT_PAGES if moved >= logged else logged + CHECKPOINT_PAGES
        # Far behind means that somebody reads for long: it would be waited for in vain, and nobody could write.
        if logged >= TRUNCATE_PAGES and logged - moved < CHECKPOINT_PAGES:
            with self._busy_handler.shortened(TRUNCATE_SECONDS):
                connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
