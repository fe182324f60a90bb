"""The watch thread of an open log: broadcasts what other processes do here, and ticks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Hashable
from pathlib import Path

from rustmq_sdk.drivers.sqlite.broadcast import MEMBERS, Broadcast, Changed
from rustmq_sdk.drivers.sqlite.file_watch import NET_SECONDS, FileWatch, Seen, poll_instead
from rustmq_sdk.drivers.sqlite.member_lock import PeerLock

UNLOCK_SECONDS = 0.001
"""The kernel tells that a dead process's file was closed a moment before it gives the lock back: try again after this,
after twice this, and so on."""


class Watcher:
    """Watches while somebody listens.

    Attributes:
        ticks: called at least once a second meanwhile, on the watch thread, and again before the seconds are over that
            they return. They must not block and not raise.

    Args:
        log: the file.
        broadcast: by which to tell.
        look: asks the thread of the writing connection for ``PRAGMA data_version`` and calls back with it. On that
            connection the number does not change with our own commits.
        open_file_watch: the way to learn of other processes; called on the watch thread.
    """

    def __init__(
        self,
        log: Path,
        broadcast: Broadcast,
        look: Callable[[Callable[[int | None], None]], None],
        open_file_watch: Callable[[], FileWatch],
    ) -> None:
        self.ticks: set[Callable[[], float]] = set()
        self.log = log
        self.broadcast = broadcast
        self.open_file_watch = open_file_watch
        self.peers: dict[Hashable, frozenset[PeerLock]] = {}
        self._look = look
        self._answered = threading.Event()
        self._answered.set()
        self._seen: int | None = None
        self._lock = threading.Lock()
        self._listening = 0
        self._threads: list[_WatchThread] = []  # the last one may be watching, the others are ending
        self._stopped = False

    def listen(self, listener: Callable[[Changed], None]) -> None:
        """Has ``listener`` called at every commit, whoever made it; see :meth:`Broadcast.listen`."""
        self.broadcast.listen(listener)
        with self._lock:
            self._listening += 1
            if self._listening == 1 and not self._stopped:
                self._threads = [*(each for each in self._threads if each.is_alive()), _WatchThread(self)]
                self._threads[-1].start()

    def unlisten(self, listener: Callable[[Changed], None]) -> None:
        """Undoes :meth:`listen`."""
        self.broadcast.unlisten(listener)
        with self._lock:
            self._listening -= 1
            if self._listening == 0 and self._threads:
                self._threads[-1].stop()

    def watch_peers(self, watching: Hashable, locks: Collection[PeerLock]) -> None:
        """Broadcasts :data:`MEMBERS` while one of these is free. From any thread; replaces what was given before."""
        with self._lock:
            if self.peers.get(watching, frozenset()) != frozenset(locks):
                self.peers = {**self.peers, watching: frozenset(locks)}
                if self._threads:
                    self._threads[-1].interrupt()

    def forget_peers(self, watching: Hashable) -> None:
        """Undoes :meth:`watch_peers`."""
        with self._lock:
            self.peers = {each: locks for each, locks in self.peers.items() if each != watching}

    def hurry(self) -> None:
        """Has the ticks called now. From any thread."""
        with self._lock:
            if self._threads:
                self._threads[-1].interrupt()

    def stop(self) -> None:
        """Ends the watching for good, without waiting for it."""
        with self._lock:
            self._stopped = True
            if self._threads:
                self._threads[-1].stop()

    def join(self) -> None:
        """Waits until it has ended; after :meth:`stop`."""
        for thread in self._threads:
            thread.join()

    def look(self) -> None:
        """Has the log itself looked at."""
        # One look at a time: they would pile up behind a transaction that takes long.
        if self._answered.is_set():
            self._answered.clear()
            self._look(self._compare)

    def _compare(self, version: int | None) -> None:
        self._answered.set()
        # The first look counts as a change: what was written between a subscription's first read and it is new.
        if version not in (None, self._seen):
            self._seen = version
            self.broadcast.tell_here(None)


class _WatchThread(threading.Thread):
    """One watch, from the first listener to the last."""

    def __init__(self, watcher: Watcher) -> None:
        super().__init__(name="rustmq-sqlite-watch", daemon=True)
        self._watcher = watcher
        self._guard = threading.Lock()  # others interrupt the file watch while this thread replaces or closes it
        self._file_watch: FileWatch | None = None
        self._stopped = False
        self._peers: frozenset[PeerLock] = frozenset()
        self._look_at = self._tick_at = self._try_at = 0.0
        self._pause = NET_SECONDS

    def stop(self) -> None:
        """Ends it, soon."""
        self._stopped = True
        self.interrupt()

    def interrupt(self) -> None:
        """Ends its waiting, or the next one."""
        with self._guard:
            if self._file_watch is not None:
                self._file_watch.interrupt()

    def run(self) -> None:
        """Until it is stopped."""
        try:
            self._run()
        finally:
            self._exchange(None)

    def _run(self) -> None:
        file_watch = self._watcher.open_file_watch()
        self._exchange(file_watch)
        while not self._stopped:
            try:
                seen = self._wait(file_watch)
            except OSError as error:
                seen = Seen(committed=True)
                file_watch = poll_instead(self._watcher.log, error)
                self._exchange(file_watch)

            self._tell(seen)
            self._look(file_watch)

    def _exchange(self, file_watch: FileWatch | None) -> None:
        with self._guard:
            before, self._file_watch = self._file_watch, file_watch

        if before is not None:
            before.close()

    def _wait(self, file_watch: FileWatch) -> Seen:
        peers = frozenset[PeerLock]().union(*self._watcher.peers.values())
        if peers != self._peers:
            self._peers = peers
            file_watch.watch({peer.path for peer in peers})
            self._try_at = 0.0  # whoever ended before he was watched is found now

        due = min(self._tick_at, self._try_at, self._look_at)
        return file_watch.wait(max(due - time.monotonic(), 0.0))

    def _tell(self, seen: Seen) -> None:
        now = time.monotonic()
        self._tick_at = now + min((tick() for tick in tuple(self._watcher.ticks)), default=NET_SECONDS)
        if seen.committed:
            self._watcher.broadcast.tell_here(None)

        if seen.ended or now >= self._try_at:
            self._pause = UNLOCK_SECONDS if seen.ended else min(2 * self._pause, NET_SECONDS)
            self._try_at = now + self._pause
            if any(peer.free() for peer in self._peers):
                self._watcher.broadcast.tell_here(frozenset({MEMBERS}))

    def _look(self, file_watch: FileWatch) -> None:
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + file_watch.look_every
            self._watcher.look()
