"""File events on Linux: three calls of the C library, which Python does not have."""

from __future__ import annotations

import ctypes
import os
import select
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from rustmq_sdk.drivers.sqlite.file_events import FileEvent

_MODIFY, _ATTRIB, _CLOSE_WRITE, _DELETE_SELF, _MOVE_SELF = 0x2, 0x4, 0x8, 0x400, 0x800
_OVERFLOW, _IGNORED = 0x4000, 0x8000
_EVENT = struct.Struct("iIII")
_ROOM = 64 * 1024

AVAILABLE = sys.platform.startswith("linux")
"""Whether this system should have it."""


class Inotify:
    """Fills :class:`~rustmq_sdk.drivers.sqlite.file_events.FileEvents`.

    Raises:
        OSError: there is no inotify here, or this user has no instance left (``fs.inotify.max_user_instances``).
    """

    def __init__(self) -> None:
        library = ctypes.CDLL(None, use_errno=True)
        if not hasattr(library, "inotify_init1"):
            raise OSError("this system's C library has no inotify")

        self._add = library.inotify_add_watch
        self._fd = _checked(library.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._files: dict[int, Path] = {}
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)
        self._poll.register(self._wake_read, select.POLLIN)

    def on_write(self, path: Path, fd: int) -> None:
        self._watch(path, _MODIFY | _ATTRIB | _DELETE_SELF | _MOVE_SELF)

    def on_end(self, path: Path) -> None:
        # The kernel closes what an ended process had open for writing. Whoever tries the lock opens to read only.
        self._watch(path, _CLOSE_WRITE)

    def wait(self, seconds: float) -> list[FileEvent]:
        ready = {fd for fd, _ in self._poll.poll(seconds * 1000)}
        if self._wake_read in ready:
            with suppress(BlockingIOError):
                os.read(self._wake_read, 512)

        return list(self._events()) if self._fd in ready else []

    def interrupt(self) -> None:
        with suppress(BlockingIOError):  # full: it wakes anyway
            os.write(self._wake_write, b"!")

    def close(self) -> None:
        for fd in (self._fd, self._wake_read, self._wake_write):
            os.close(fd)

    def _watch(self, path: Path, mask: int) -> None:
        self._files[_checked(self._add(self._fd, os.fsencode(path), mask))] = path

    def _events(self) -> Iterator[FileEvent]:
        data = os.read(self._fd, _ROOM)
        at = 0
        while at < len(data):
            watch, mask, _, length = _EVENT.unpack_from(data, at)
            at += _EVENT.size + length
            path = self._files.get(watch)
            if mask & _OVERFLOW:
                yield FileEvent(None, "written")
            elif path is not None and mask & (_MODIFY | _CLOSE_WRITE):
                yield FileEvent(path, "ended" if mask & _CLOSE_WRITE else "written")
            elif path is not None:
                yield FileEvent(path, "gone")

            if mask & _IGNORED:
                self._files.pop(watch, None)


def _checked(answer: int) -> int:
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))

    return answer
