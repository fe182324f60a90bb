"""Whether the files that are open are still what their names lead to: SQLite writes on into a deleted file.

SQLite asks this of itself only where it keeps a rollback journal (``SQLITE_READONLY_DBMOVED``). With a write-ahead log
it confirms commits into a file that nobody will find again. So the log's name is looked up after each commit and before
anybody is told of it: what was confirmed was in the file of that name. The two files beside it are looked up once a
second; who deletes those only has not lost anything yet.

A hard link is a second name with a write-ahead log of its own. Who opens both loses what was written by one of them
(https://sqlite.org/howtocorrupt.html, 2.5), so a log that has got one while it was open is given up as well.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, NoReturn

import apsw

from rustmq_sdk.drivers.sqlite.database import ONE_NAME, Connection, disconnect, uninterrupt
from rustmq_sdk.drivers.sqlite.failures import FileGone

COMPANIONS = ("-wal", "-shm")
"""They keep their inodes as long as any connection is open."""

COMPANIONS_SECONDS = 1.0
"""How often to look after them."""


class _Found(NamedTuple):
    """What a name leads to, and how many names lead there."""

    inode: tuple[int, int]
    names: int


class FileIdentity:
    """One open log: its first connection says which file it is, and once that is gone it stays gone.

    A program that went on with what it finds under the name now would be in another log, with other positions.

    Args:
        name: by which the log was opened.
        path: of the file that the name led to: the same, but for symbolic links.
    """

    def __init__(self, name: Path, path: Path) -> None:
        # The name, so that a link that leads elsewhere from now on is noticed.
        self._paths = {"": name} | {suffix: Path(f"{path}{suffix}") for suffix in COMPANIONS}
        self._lock = threading.Lock()
        self._known: dict[str, _Found] = {}
        self._look_at = 0.0
        self._gone: str | None = None

    def opened(self, connection: Connection) -> None:
        """A connection was opened; it has read something, so all three files are there.

        Raises:
            FileGone: it has opened another file than those before it, or one that has several names.
        """
        with self._lock:
            self._raise_if_gone()
            # Of its companions SQLite makes new ones where no connection was left in between; never of the log.
            names = ("", *COMPANIONS) if "" not in self._known else COMPANIONS
            found = {suffix: self._find(suffix) for suffix in names}
            self._known |= {suffix: each for suffix, each in found.items() if each is not None}
            self._compare([""])
            if _has_moved(connection):
                self._fail_moved("")

    def check(self) -> None:
        """After a commit, before anybody is told of it.

        Raises:
            FileGone: one of the files is not what its name leads to, or the log has another name as well.
        """
        with self._lock:
            self._raise_if_gone()
            now = time.monotonic()
            if now < self._look_at:
                self._compare([""])
            else:
                self._look_at = now + COMPANIONS_SECONDS
                self._compare(["", *COMPANIONS])

    def raise_if_gone(self) -> None:
        """As :meth:`check`, of what is known already."""
        with self._lock:
            self._raise_if_gone()

    def close(self, connection: Connection) -> None:
        """Closes a connection; if the files are gone, saves what can be saved of what was confirmed.

        The last connection moves the write-ahead log into the log if that is still there, which is right if only the
        write-ahead log was deleted: it is whole, and nobody else has it. A log that was moved away is brought up to
        date. Anywhere else others may have begun with files of the same names, and nothing is written any more.
        """
        found = {suffix: self._find(suffix) for suffix in self._known}
        there = {suffix: each for suffix, each in found.items() if each is not None}
        missing = found.keys() - there.keys()
        if missing == {"-shm"} or any(each.inode != self._known[suffix].inode for suffix, each in there.items()):
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        elif "" in missing:
            uninterrupt(connection)
            with suppress(apsw.Error):
                connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)

        disconnect(connection)

    def _compare(self, suffixes: Iterable[str]) -> None:
        for suffix in suffixes:
            if suffix not in self._known:
                continue

            found = self._find(suffix)
            if found is None or found.inode != self._known[suffix].inode:
                self._fail_moved(suffix)

            if suffix == "" and found.names > 1:
                self._fail(f"{self._paths['']} has got another name (a hard link) while the log was open. {ONE_NAME}")

    def _fail_moved(self, suffix: str) -> NoReturn:
        self._fail(
            f"{self._paths[suffix]} was deleted, moved or replaced while the log was open: what is written now nobody "
            f"would find again. Stop all programs that use {self._paths['']}, put back what was moved away, and start "
            "them again"
        )

    def _fail(self, problem: str) -> NoReturn:
        self._gone = problem
        raise FileGone(problem)

    def _raise_if_gone(self) -> None:
        if self._gone is not None:
            raise FileGone(self._gone)

    def _find(self, suffix: str) -> _Found | None:
        try:
            return _find(self._paths[suffix])
        except OSError:  # it cannot be looked at now: no reason to think anything of it
            return self._known.get(suffix)


def _has_moved(connection: Connection) -> bool:
    """Whether it was replaced while it was being opened, and before its name was looked up."""
    moved = ctypes.c_int()
    return connection.file_control("main", apsw.SQLITE_FCNTL_HAS_MOVED, ctypes.addressof(moved)) and bool(moved.value)


def _find(path: Path) -> _Found | None:
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None

    return _Found((status.st_dev, status.st_ino), status.st_nlink)
