"""Tells everybody who waits that something was written: this process at once, others by ringing at a file."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import ClassVar, TypeAlias
from weakref import WeakValueDictionary

from rustmq_sdk._threads import Mailbox
from rustmq_sdk.drivers.sqlite.doorbell import AVAILABLE, Doorbell
from rustmq_sdk.drivers.sqlite.forks import after_fork

Changed: TypeAlias = frozenset[Hashable] | None
"""What was written: ids of partitions, :data:`TOPICS`, ``("group", name)``. None: anything, another process wrote."""

TOPICS = "topics"
"""Topics came or went."""

MEMBERS = "members"
"""The process of a member, of whichever group, has ended."""


def group_key(group: str) -> Hashable:
    """What is told when a group's members or claims changed."""
    return ("group", group)


class _Listeners:
    """Everybody in this process who waits for something in one file, whoever of them has opened it."""

    by_path: ClassVar[WeakValueDictionary[Path, _Listeners]] = WeakValueDictionary()
    lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self) -> None:
        self.all: tuple[Callable[[Changed], None], ...] = ()

    @classmethod
    def of(cls, path: Path) -> _Listeners:
        with cls.lock:
            listeners = cls.by_path.get(path)
            if listeners is None:
                listeners = cls.by_path[path] = cls()

            return listeners

    @classmethod
    def forget(cls) -> None:
        """In a forked child: those who listened are threads and loops of its parent."""
        cls.by_path = WeakValueDictionary()
        cls.lock = threading.Lock()


after_fork(_Listeners.forget)


class Broadcast:
    """Sent after a commit; heard by everybody in this process who has the same file open, and by other processes."""

    def __init__(self, path: Path) -> None:
        self._listeners = _Listeners.of(path)
        self._doorbell = Doorbell(path) if AVAILABLE else None

    def listen(self, listener: Callable[[Changed], None]) -> None:
        """Has ``listener`` called at every broadcast, on the thread that sends: it must not block and not raise."""
        with self._listeners.lock:
            self._listeners.all = (*self._listeners.all, listener)

    def unlisten(self, listener: Callable[[Changed], None]) -> None:
        """Undoes :meth:`listen`."""
        with self._listeners.lock:
            self._listeners.all = tuple(each for each in self._listeners.all if each != listener)

    def send(self, changed: Changed) -> None:
        """After a commit of ours. From the writer's thread only."""
        self.tell_here(changed)
        if self._doorbell is not None:
            self._doorbell.ring()

    def tell_here(self, changed: Changed) -> None:
        """Somebody else has committed: only this process is told. From any thread."""
        for listener in self._listeners.all:
            listener(changed)

    def close(self) -> None:
        """Sends no more. On the writer's thread, or after it has ended."""
        if self._doorbell is not None:
            self._doorbell.close()


class LoopListener:
    """Brings what is broadcast to one event loop. While the loop is blocked the broadcasts become one.

    Args:
        tell: called by the loop.
    """

    def __init__(self, tell: Callable[[Changed], None]) -> None:
        self._tell = tell
        self._mailbox = Mailbox.current()
        self._lock = threading.Lock()
        self._waiting = False
        self._news: Changed = frozenset()

    def hear(self, changed: Changed) -> None:
        """A listener of a :class:`Broadcast`. From any thread."""
        with self._lock:
            news = self._news
            self._news = None if news is None or changed is None else news | changed
            waiting, self._waiting = self._waiting, True

        if not waiting:
            self._mailbox.post(self._listen)

    def _listen(self) -> None:
        with self._lock:
            news, self._news, self._waiting = self._news, frozenset(), False

        self._tell(news)
