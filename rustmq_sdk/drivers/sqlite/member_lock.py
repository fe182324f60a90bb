"""A lock that a member holds as long as its process lives: who can have it knows that the member has ended.

The lock is ``flock`` on a file of the member's own, ``PATH-member-ID``. The member's row has the file's inode number:
a member without a lock (an older release, a file system without ``flock``) has none there, and a file that somebody has
put in its place says nothing. A file that is missing says nothing either. So a free lock on that very file means that
the member has ended, and everything else means that its heartbeat decides.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from weakref import WeakSet

from rustmq_sdk.drivers.sqlite.filelocks import AVAILABLE, copy_permissions, is_at, lock_alone, lock_shared
from rustmq_sdk.drivers.sqlite.forks import after_fork

ATTEMPTS = 3
"""To make the file: another member may sweep it away before it is locked."""


class MemberLock:
    """Held until :meth:`release`, :meth:`let_go`, or the end of the process; also until nobody refers to it.

    Attributes:
        inode: of the file; None: there is no lock to be had here.
    """

    def __init__(self, log: Path, member: bytes) -> None:
        self.inode: int | None = None
        self._path = lock_path(log, member)
        self._fd: int | None = None
        with suppress(OSError):  # read-only, full: the heartbeat has to do
            for _ in range(ATTEMPTS if AVAILABLE else 0):
                if self._take(log):
                    break

    def __del__(self) -> None:
        self.let_go()

    def release(self) -> None:
        """The member is out of the group: its file goes as well."""
        if self._fd is not None:
            with suppress(OSError):
                self._path.unlink()

        self.let_go()

    def let_go(self) -> None:
        """The member ends, but may still be in the group: the file tells the others, and one of them removes it."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def _take(self, log: Path) -> bool:
        # Python has every descriptor closed on exec: no program that we start inherits the lock.
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        copy_permissions(self._fd, log)
        inode = _number(os.fstat(self._fd))
        # A file system may say yes to everybody, or count by process: only a lock that keeps others out is one. They
        # find it under its name, so it is no lock either if the file was swept away before it was locked.
        if lock_alone(self._fd) and PeerLock(self._path, inode).held():
            self.inode = inode
            _held.add(self)
            return True

        self.release()
        return False


_held: WeakSet[MemberLock] = WeakSet()


def _let_go_in_child() -> None:
    # A child shares the lock: it would keep a dead parent in its group. To close is not to unlock, the parent keeps it.
    for lock in tuple(_held):
        lock.let_go()


after_fork(_let_go_in_child)


class PeerLock(NamedTuple):
    """Another member's lock: its file, and the inode number from the member's row."""

    path: Path
    inode: int

    def free(self) -> bool:
        """Whether the member has ended. False where that cannot be said."""
        return self._held() is False

    def held(self) -> bool:
        """Whether the member's process is there. False where that cannot be said."""
        return self._held() is True

    def _held(self) -> bool | None:
        try:
            fd = os.open(self.path, os.O_RDONLY)
        except OSError:
            return None

        try:
            # Shared, so that two who try at once do not take each other for the member.
            return not lock_shared(fd) if _number(os.fstat(fd)) == self.inode else None
        finally:
            os.close(fd)


def _number(status: os.stat_result) -> int:
    return status.st_ino & 0x7FFFFFFFFFFFFFFF  # SQLite's integers have a sign, some file systems use all 64 bits


def lock_path(log: Path, member: bytes) -> Path:
    """The file whose lock a member holds."""
    return Path(f"{log}-member-{member.hex()}")


def remove(log: Path, members: Collection[bytes]) -> None:
    """Removes the files of members that are not in the group any more. Their ids never come back."""
    for member in members:
        with suppress(OSError):
            lock_path(log, member).unlink()


def sweep(log: Path, members: Collection[bytes]) -> None:
    """Removes what others have left behind: files of nobody among ``members`` whose lock is free."""
    if not AVAILABLE:
        return

    prefix = lock_path(log, b"").name
    spared = {lock_path(log, member).name for member in members}
    with suppress(OSError):
        for path in log.parent.iterdir():
            if path.name.startswith(prefix) and path.name not in spared:
                _sweep(path)


def _sweep(path: Path) -> None:
    with suppress(OSError):
        fd = os.open(path, os.O_RDWR)
        try:
            # Somebody who is about to join has made the file and perhaps not locked it yet. Removed under our lock, it
            # is missing when he looks for it under his, and he makes another.
            if lock_alone(fd) and is_at(path, os.fstat(fd)):
                path.unlink()
        finally:
            os.close(fd)
