"""Opening the file: is it ours, is it new, is it from a later release."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeAlias

import apsw

from rustmq_sdk.drivers.sqlite.forks import was_open_in_parent
from rustmq_sdk.drivers.sqlite.options import SqliteOptions
from rustmq_sdk.drivers.sqlite.schema import ADDED, APPLICATION_ID, FORMAT_VERSION, PAGE_SIZE, TABLES
from rustmq_sdk.errors import ConfigurationError, PermanentDriverError

Connection: TypeAlias = apsw.Connection
"""Each is used by one thread only; ``interrupt()`` may come from any."""

SAFE_SQLITE = (3, 51, 3)
"""Before this release two connections that write or checkpoint at once can corrupt the write-ahead log."""


ONE_NAME = (
    "With no program using it, remove all names but the one that has a -wal beside it, if any has (find DIRECTORY "
    "-samefile FILE lists them). Use symbolic links for other names, and rustmq backup for copies"
)
"""What to do about a log with hard links."""

POLL_SECONDS = 0.001
"""How often to try a lock that somebody holds; a transaction takes longer. Who tries every 20 ms meets the moments in
which a busy writer does not hold it one time in twenty, and is kept out for a quarter of a second."""


class BusyHandler:
    """Waits for a lock that somebody else holds: at most ``busy_timeout``, and not at all once ``stop`` is set.

    SQLite's own waiting cannot be interrupted, and a client that is closed must not wait for another process.
    """

    def __init__(self, seconds: float, stop: threading.Event) -> None:
        self._seconds = seconds
        self._stop = stop
        self._since = 0.0
        self._tried_at = -math.inf

    def __call__(self, calls_before: int) -> bool:
        """What SQLite calls while it meets a lock: True to try again."""
        self._tried_at = now = time.monotonic()
        if calls_before == 0:
            self._since = now

        left = self._since + self._seconds - now
        return left > 0 and not self._stop.wait(min(left, POLL_SECONDS))

    def used_within(self, seconds: float) -> bool:
        """Whether somebody held a lock that we wanted, not longer ago than this."""
        return time.monotonic() - self._tried_at < seconds

    @contextmanager
    def shortened(self, seconds: float) -> Iterator[None]:
        """Waits at most this long inside of the block."""
        before, self._seconds = self._seconds, seconds
        try:
            yield
        finally:
            self._seconds = before


def connect(path: Path, options: SqliteOptions, busy_handler: BusyHandler) -> Connection:
    """A connection to the log in ``path``, which is created if there is none and ``options`` allow it.

    Args:
        path: of the file.
        options: from the URL.
        busy_handler: waits for locks.

    Raises:
        ConfigurationError: no such directory, no log where none is to be created, another application's file, or one
            of a later release.
        PermanentDriverError: the file is read-only.
        apsw.Error: everything else; see ``failures``.
    """
    check_library()
    _check_place(path, options)
    flags = apsw.SQLITE_OPEN_READWRITE | (apsw.SQLITE_OPEN_CREATE if options.create else 0)
    connection = apsw.Connection(str(path), flags=flags)
    try:
        connection.set_busy_handler(busy_handler)
        _adopt(connection, path, create=options.create)
        connection.pragma("synchronous", options.sync)
        connection.pragma("foreign_keys", value=True)
        connection.wal_autocheckpoint(0)  # the writer does it, between its transactions
    except BaseException:
        connection.close()
        raise

    return connection


def disconnect(connection: Connection) -> None:
    """Closes; the last connection to a file moves the write-ahead log into it."""
    uninterrupt(connection)
    # What a full disk keeps from being moved stays in the write-ahead log, where the next one who opens it finds it.
    with suppress(apsw.Error):
        connection.close(force=True)


def uninterrupt(connection: Connection) -> None:
    """Only a statement takes an interruption back; a checkpoint, at closing as well, would be refused for it."""
    with suppress(apsw.Error):
        connection.execute("SELECT 1").fetchall()


def check_library() -> None:
    """Raises ``ConfigurationError`` if apsw was built with an SQLite that can corrupt a shared log."""
    version = tuple(map(int, apsw.sqlite_lib_version().split(".")))
    if version < SAFE_SQLITE:
        raise ConfigurationError(
            "this SQLite can corrupt a log that two connections write",
            field="apsw",
            value=apsw.sqlite_lib_version(),
            fix="Install apsw 3.51.3.0 or later from its wheel, which brings its own SQLite",
        )


def _check_place(path: Path, options: SqliteOptions) -> None:
    if was_open_in_parent(path):
        raise _not_ours(
            path,
            "this process was forked from one that had the file open, and SQLite has taken over its locks",
            "Start the process by spawn (multiprocessing.set_start_method), or fork before the file is opened",
        )

    # stat() only: opening the file and closing it again would drop the POSIX locks SQLite holds on it.
    if Path(os.path.realpath(path)).is_symlink():
        raise _not_ours(path, "this is a symbolic link, which leads in a circle", "Name a file")

    if path.is_dir():
        raise _not_ours(path, "this is a directory", "Name a file in it")

    if not path.parent.is_dir():
        raise _not_ours(path, f"the directory {path.parent} does not exist", "Create it, or name another file")

    if path.exists() and path.stat().st_nlink > 1:
        raise _not_ours(
            path, "the file has several names (hard links), and each would have a -wal of its own", ONE_NAME
        )

    if not options.create and not path.exists():
        raise _not_ours(
            path, "there is no such file", "Name an existing log: what only looks (create=false) makes none"
        )


def _adopt(connection: Connection, path: Path, *, create: bool) -> None:
    try:
        fresh = _is_new(connection, path)
    except apsw.NotADBError as error:
        raise _not_ours(path, "this is not an SQLite database", "Name another file") from error

    if connection.readonly("main"):
        raise PermanentDriverError(
            f"{path}: the file is read-only. Make it and its directory writable for this user: consuming writes, too",
            slot="source",
            operation="open",
        )

    if fresh and not create:
        raise _not_ours(path, "the file is empty", "Name an existing log")

    if fresh:
        connection.pragma("page_size", PAGE_SIZE)

    _log_ahead(connection, path)
    if fresh:
        _create(connection, path)
    else:
        _complete(connection)


def _log_ahead(connection: Connection, path: Path) -> None:
    """Has the file a write-ahead log, also if it is a copy by ``VACUUM INTO``, which has none."""
    mode = connection.pragma("journal_mode", "wal")
    if mode != "wal":
        raise PermanentDriverError(
            f"{path}: there can be no write-ahead log here (journal mode {mode}). Keep the file on a local disk",
            slot="source",
            operation="open",
        )


def _create(connection: Connection, path: Path) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Again, now that nobody else can write: another process may have been quicker.
        if _is_new(connection, path):
            connection.execute(TABLES)
            connection.pragma("user_version", FORMAT_VERSION)
            connection.pragma("application_id", APPLICATION_ID)

        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _complete(connection: Connection) -> None:
    """Adds the columns that the release lacked which made the file."""
    if not _lacking(connection):
        return

    connection.execute("BEGIN IMMEDIATE")
    try:
        # Again, now that nobody else can write: another process may have been quicker.
        for table, column, kind in _lacking(connection):
            connection.execute(f"ALTER TABLE {table} ADD COLUMN {column} {kind}")

        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _lacking(connection: Connection) -> list[tuple[str, str, str]]:
    sql = "SELECT count(*) FROM pragma_table_info(?) WHERE name = ?"
    return [each for each in ADDED if not connection.execute(sql, each[:2]).get]


def _is_new(connection: Connection, path: Path) -> bool:
    application, version = connection.pragma("application_id"), connection.pragma("user_version")
    if application == APPLICATION_ID:
        _check_version(path, version)
        return False

    if application != 0 or connection.execute("SELECT count(*) FROM sqlite_schema").get:
        raise _not_ours(
            path, f"this is another application's database (application_id {application})", "Name another file"
        )

    return True


def _check_version(path: Path, version: int) -> None:
    if version > FORMAT_VERSION:
        raise _not_ours(
            path,
            f"the file has format {version}, this release knows up to {FORMAT_VERSION}",
            "Upgrade rustmq-sdk here: a later release has written the file",
        )


def _not_ours(path: Path, problem: str, fix: str) -> ConfigurationError:
    return ConfigurationError(problem, field="url", value=str(path), fix=fix)
