"""How the watch thread learns what other processes do: told by the operating system, or by looking often."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from rustmq_sdk import _log
from rustmq_sdk.drivers.sqlite import inotify, kqueue
from rustmq_sdk.drivers.sqlite.doorbell import DoorbellWatch
from rustmq_sdk.drivers.sqlite.file_events import FileEvents

NET_SECONDS = 1.0
"""How often to look at the log itself although its file is watched. A writer that was killed between its commit and
its ring, and programs that know nothing of the ring, are heard that late."""

POLL_SECONDS = 0.008
"""How often to look where nothing can be watched: a commit is seen in 10 ms."""

OWN_SECONDS = 0.0005
"""The system tells of our own rings as well. A process that commits thousands of times a second hears of several at
once this way: woken for each of them it would spend a quarter of its time on it."""

REWATCH_ATTEMPTS = 5
"""To watch the file while others remove it; it can only go when its last watcher closes it, or by somebody's hand."""


class Seen(NamedTuple):
    """What a wait has brought.

    Attributes:
        committed: another process has rung.
        ended: a member's process may have ended.
    """

    committed: bool = False
    ended: bool = False


class FileWatch(Protocol):
    """Used by the watch thread; :meth:`interrupt` may come from any.

    Attributes:
        look_every: seconds between two looks at the log.
    """

    look_every: float

    def watch(self, locks: Collection[Path]) -> None:
        """Has :meth:`wait` tell, where it can be known, when the process ends that holds one of these."""
        ...

    def wait(self, seconds: float) -> Seen:
        """Waits, at most this long. ``OSError``: it cannot be watched any more."""
        ...

    def interrupt(self) -> None:
        """Ends the waiting, or the next one."""
        ...

    def close(self) -> None:
        """Gives everything back."""
        ...


class EventFileWatch:
    """Told by the operating system.

    Raises:
        OSError: the file beside the log can be neither created nor watched.
    """

    look_every = NET_SECONDS

    def __init__(self, log: Path, events: FileEvents) -> None:
        self._log = log
        self._events = events
        self._watched: frozenset[Path] = frozenset()
        self._doorbell = self._watch_doorbell()

    def watch(self, locks: Collection[Path]) -> None:
        for path in frozenset(locks) - self._watched:
            with suppress(OSError):  # gone already, or no watch left: whoever looks once a second finds out
                self._events.on_end(path)

        self._watched = frozenset(locks)

    def wait(self, seconds: float) -> Seen:
        events = self._events.wait(seconds)
        dropped = any(event.path is None for event in events)
        rings = any(event.path == self._doorbell.path for event in events)
        committed = rings and self._doorbell.rung()
        if rings and not committed:
            time.sleep(OWN_SECONDS)

        if any(event.kind == "gone" for event in events) and not self._doorbell.in_place:
            self._doorbell.close()
            self._doorbell = self._watch_doorbell()
            committed = True  # whoever rang meanwhile rang the old one, or the new one before it was watched

        return Seen(committed or dropped, dropped or any(event.kind == "ended" for event in events))

    def interrupt(self) -> None:
        self._events.interrupt()

    def close(self) -> None:
        self._doorbell.close()
        self._events.close()

    def _watch_doorbell(self) -> DoorbellWatch:
        for _ in range(REWATCH_ATTEMPTS):
            doorbell = DoorbellWatch(self._log)
            try:
                self._events.on_write(doorbell.path, doorbell.fd)
            except BaseException:
                doorbell.close()
                raise

            # Removed before it was watched: nobody would have told.
            if doorbell.in_place:
                return doorbell

            doorbell.close()

        raise OSError(f"{doorbell.path} is removed again and again")


class PollingFileWatch:
    """Reads the file beside the log often, which costs half of what a look at the log does."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._interrupted = False
        self._doorbell: DoorbellWatch | None = None
        self.look_every = POLL_SECONDS
        with suppress(OSError):  # no such file can be had: the log itself is looked at as often
            self._doorbell = DoorbellWatch(log)
            self.look_every = NET_SECONDS

    def watch(self, locks: Collection[Path]) -> None:
        pass

    def wait(self, seconds: float) -> Seen:
        until = time.monotonic() + seconds
        while True:
            left = until - time.monotonic()
            time.sleep(min(max(left, 0.0), POLL_SECONDS))
            if self._doorbell is not None and self._doorbell.rung():
                return Seen(committed=True)

            if left <= POLL_SECONDS or self._interrupted:
                self._interrupted = False
                return Seen(committed=self._replaced())

    def interrupt(self) -> None:
        self._interrupted = True

    def close(self) -> None:
        if self._doorbell is not None:
            self._doorbell.close()

    def _replaced(self) -> bool:
        """Whether there is another file now: whoever rang meanwhile rang one that nobody read."""
        if self._doorbell is None or self._doorbell.in_place:
            return False

        self._doorbell.close()
        self._doorbell = DoorbellWatch(self._log)
        return True


def open_file_watch(log: Path, how: Literal["auto", "poll"]) -> FileWatch:
    """The best there is: the one place where that is decided. Never fails; what is missing is a warning in the log."""
    if how == "poll":
        return PollingFileWatch(log)

    try:
        events = _file_events()
        if events is None:
            return PollingFileWatch(log)

        try:
            return EventFileWatch(log, events)
        except BaseException:
            events.close()
            raise
    except OSError as error:
        return poll_instead(log, error)


def poll_instead(log: Path, error: OSError) -> PollingFileWatch:
    """What is left when files cannot be watched, or not any more."""
    _log.log(
        logging.WARNING,
        "wake_by_polling",
        "%s: cannot be watched for other processes' commits (%s): looking every %g ms. wake=poll does so silently",
        log,
        error,
        POLL_SECONDS * 1000,
    )
    return PollingFileWatch(log)


def _file_events() -> FileEvents | None:
    if inotify.AVAILABLE:
        return inotify.Inotify()

    return kqueue.Kqueue() if kqueue.AVAILABLE else None
