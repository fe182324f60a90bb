"""File events on macOS and the BSDs."""

from __future__ import annotations

import os
import select
from contextlib import suppress
from pathlib import Path
from typing import Any

from rustmq_sdk.drivers.sqlite.file_events import FileEvent

_kqueue: Any = select  # the names below are missing from it, and from its stubs, where there is no kqueue
_ROOM = 64

AVAILABLE = hasattr(select, "kqueue")
"""Whether this system has it."""


class Kqueue:
    """Fills :class:`~rustmq_sdk.drivers.sqlite.file_events.FileEvents`.

    It cannot tell when another process closes a file: ended members are found by the look that is taken once a second.

    Raises:
        OSError: the process has no descriptor left.
    """

    def __init__(self) -> None:
        self._queue = _kqueue.kqueue()
        self._files: dict[int, Path] = {}
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._register(self._wake_read, _kqueue.KQ_FILTER_READ, 0)

    def on_write(self, path: Path, fd: int) -> None:
        # The descriptor that is watched is the caller's: closing it ends the watch, and its number may be used again.
        self._files[fd] = path
        notes = _kqueue.KQ_NOTE_WRITE | _kqueue.KQ_NOTE_DELETE | _kqueue.KQ_NOTE_RENAME
        self._register(fd, _kqueue.KQ_FILTER_VNODE, notes)

    def on_end(self, path: Path) -> None:
        pass

    def wait(self, seconds: float) -> list[FileEvent]:
        events = []
        for each in self._queue.control(None, _ROOM, seconds):
            if each.ident == self._wake_read:
                with suppress(BlockingIOError):
                    os.read(self._wake_read, 512)
            elif (path := self._files.get(each.ident)) is not None:
                gone = each.fflags & (_kqueue.KQ_NOTE_DELETE | _kqueue.KQ_NOTE_RENAME)
                events.append(FileEvent(path, "gone" if gone else "written"))

        return events

    def interrupt(self) -> None:
        with suppress(BlockingIOError):  # full: it wakes anyway
            os.write(self._wake_write, b"!")

    def close(self) -> None:
        self._queue.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _register(self, fd: int, kind: int, notes: int) -> None:
        flags = _kqueue.KQ_EV_ADD | _kqueue.KQ_EV_CLEAR
        self._queue.control([_kqueue.kevent(fd, kind, flags, notes)], 0, 0)
