"""Who tells a waiting fetch that something was written: this process at once, others by a look at the file."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import ClassVar, TypeAlias
from weakref import WeakValueDictionary

import anyio

Changed: TypeAlias = frozenset[Hashable] | None
"""What was written: ids of partitions, :data:`TOPICS`, ``("group", name)``. None: anything, another process wrote."""

TOPICS = "topics"
"""Topics came or went."""

POLL_SECONDS = 0.05
"""How often to look for other processes' commits while somebody listens. A look takes 2 us."""


def group_key(group: str) -> Hashable:
    """What is rung when a group's members or claims changed."""
    return ("group", group)


class Bell:
    """Rung after a commit; heard by everybody in this process who has the same file open."""

    _bells: ClassVar[WeakValueDictionary[Path, Bell]] = WeakValueDictionary()
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self) -> None:
        self._listeners: tuple[Callable[[Changed], None], ...] = ()

    @classmethod
    def of(cls, path: Path) -> Bell:
        """The bell of a file, one for all drivers of the process."""
        place = path.resolve()
        with cls._lock:
            bell = cls._bells.get(place)
            if bell is None:
                bell = cls._bells[place] = cls()

            return bell

    @property
    def heard(self) -> bool:
        """Whether anybody listens."""
        return bool(self._listeners)

    def listen(self, listener: Callable[[Changed], None]) -> None:
        """Has ``listener`` called at every ring, on the thread that rings: it must not block and not raise."""
        with self._lock:
            self._listeners = (*self._listeners, listener)

    def unlisten(self, listener: Callable[[Changed], None]) -> None:
        """Undoes :meth:`listen`."""
        with self._lock:
            self._listeners = tuple(each for each in self._listeners if each != listener)

    def ring(self, changed: Changed) -> None:
        """From any thread, after the commit."""
        for listener in self._listeners:
            listener(changed)


class Stir:
    """An event that is waited for again and again: rearm it, look, and only then wait. Belongs to one loop.

    Attributes:
        left: whether whoever waits should return to its caller, and not only look again.
    """

    def __init__(self) -> None:
        self.left = False
        self._event = anyio.Event()

    def rearm(self) -> None:
        """What was set before is forgotten."""
        self._event = anyio.Event()

    def look(self) -> None:
        """Ends the waiting: there may be something new."""
        self._event.set()

    def leave(self) -> None:
        """Ends the waiting, or the next one, and has its caller return."""
        self.left = True
        self._event.set()

    async def wait(self) -> None:
        """Until something happens, or has happened since the last :meth:`rearm`."""
        await self._event.wait()


class Watcher:
    """Rings the bell when another process has committed, and ticks.

    Attributes:
        ticks: what else is called on its thread each time it looks; must not block and not raise.

    Args:
        bell: to ring.
        look: asks the thread of the writing connection for ``PRAGMA data_version`` and calls back with it. On that
            connection the number does not change with our own commits.
    """

    def __init__(self, bell: Bell, look: Callable[[Callable[[int | None], None]], None]) -> None:
        self.ticks: set[Callable[[], None]] = set()
        self._bell = bell
        self._look = look
        self._answered = threading.Event()
        self._answered.set()
        self._seen: int | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="rustmq-sqlite-watch", daemon=True)

    def start(self) -> None:
        """Begins watching."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the watching, without waiting for it."""
        self._stop.set()

    def _watch(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            for tick in tuple(self.ticks):
                tick()

            # One look at a time: they would pile up behind a transaction that takes long.
            if self._bell.heard and self._answered.is_set():
                self._answered.clear()
                self._look(self._compare)

    def _compare(self, version: int | None) -> None:
        self._answered.set()
        # The first look counts as a change: what was written between a subscription's first read and it is new.
        if version not in (None, self._seen):
            self._seen = version
            self._bell.ring(None)
