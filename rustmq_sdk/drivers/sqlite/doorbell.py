"""The file beside the log that tells other processes of a commit. Only its being written matters.

A process writes into a slot of its own, so that it can tell its own rings from those of others without a look at the
log. Two processes that have drawn the same slot overwrite each other; a ring that is lost by it is found by the look
at the log that :mod:`~rustmq_sdk.drivers.sqlite.watcher` takes once a second.

The file exists while somebody watches it. Who writes does not create it: where nobody waits, nobody is told.
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from pathlib import Path

from rustmq_sdk.drivers.sqlite.filelocks import copy_permissions, is_at, lock_alone, lock_shared
from rustmq_sdk.drivers.sqlite.forks import after_fork

AVAILABLE = hasattr(os, "pwrite")
"""Not on Windows: there everybody looks at the log itself."""

SLOTS = 512
"""Of 8 bytes each: one page."""

_SLOT = struct.Struct("=II")
_NOTHING = bytes(_SLOT.size)


class _OurSlot:
    """This process: its slot, and what it writes there."""

    def __init__(self) -> None:
        self.draw()

    def draw(self) -> None:
        """A forked child is another process, and would pass for its parent otherwise."""
        self.token = int.from_bytes(os.urandom(4), "big")
        self.offset = self.token % SLOTS * _SLOT.size
        self._count = 0

    def next(self) -> bytes:
        """What to write: never twice the same."""
        self._count = (self._count + 1) & 0xFFFFFFFF
        return _SLOT.pack(self.token, self._count)

    def others(self, page: bytes) -> bytes:
        """The page without what is ours: as if nobody had written there."""
        page = page.ljust(SLOTS * _SLOT.size, b"\0")
        token, _ = _SLOT.unpack_from(page, self.offset)
        return page[: self.offset] + _NOTHING + page[self.offset + _SLOT.size :] if token == self.token else page


_our_slot = _OurSlot()
after_fork(_our_slot.draw)


def doorbell_path(log: Path) -> Path:
    """The file that belongs to a log."""
    return Path(f"{log}-wake")


class Doorbell:
    """Where the writer rings, on its thread."""

    def __init__(self, log: Path) -> None:
        self._path = doorbell_path(log)
        self._fd: int | None = None

    def ring(self) -> None:
        """Something was committed. Never fails: whoever is not reached looks for himself within a second."""
        with suppress(OSError):
            # Somebody may have removed or moved the file, and those who wait now watch another one.
            if self._fd is None or not is_at(self._path, os.fstat(self._fd)):
                self.close()
                self._fd = os.open(self._path, os.O_RDWR)

            os.pwrite(self._fd, _our_slot.next(), _our_slot.offset)

    def close(self) -> None:
        """Rings no more, until the next :meth:`ring`."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)


class DoorbellWatch:
    """What one who waits has of the doorbell; creates it.

    Raises:
        OSError: the file can be neither created nor opened.
    """

    def __init__(self, log: Path) -> None:
        if not AVAILABLE:
            raise OSError("this system cannot read and write at a place in a file")

        self.path = doorbell_path(log)
        self.fd = self._opened()
        copy_permissions(self.fd, log)
        self._seen = self._others()

    @property
    def in_place(self) -> bool:
        """False once somebody has removed or replaced the file: nobody will ring this one."""
        return is_at(self.path, os.fstat(self.fd))

    def rung(self) -> bool:
        """Whether another process has rung since the last call."""
        others = self._others()
        before, self._seen = self._seen, others
        return others != before

    def close(self) -> None:
        """Watches no more, also if it is said twice. The last one removes the file."""
        if self.fd < 0:
            return

        # Whoever comes in between has opened the file already, and sees by the number of its links that it is gone.
        if lock_alone(self.fd) and self.in_place:
            with suppress(OSError):
                self.path.unlink()

        os.close(self.fd)
        self.fd = -1

    def _opened(self) -> int:
        while True:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            lock_shared(fd)
            if is_at(self.path, os.fstat(fd)):
                return fd

            os.close(fd)

    def _others(self) -> bytes:
        return _our_slot.others(os.pread(self.fd, SLOTS * _SLOT.size, 0))
