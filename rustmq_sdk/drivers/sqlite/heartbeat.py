"""Heartbeats. They come from the threads of the file, so that a handler that blocks the loop does not cost a lease."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

from rustmq_sdk._threads import ThreadClosed
from rustmq_sdk.drivers.sqlite import claims
from rustmq_sdk.drivers.sqlite.transaction import Transaction
from rustmq_sdk.drivers.sqlite.writer import Answered

MAX_STALL = 300.0
"""Seconds for which a loop that shows no life is still vouched for; Kafka's default of ``max.poll.interval.ms``."""


class Heartbeat:
    """Beats every quarter of a lease.

    Args:
        group: whose member it is.
        lease: in seconds.
        request: has a change made, without waiting for it.
        missed: called, from any thread, when a beat found that the others have expired us.
    """

    def __init__(
        self,
        group: str,
        lease: float,
        request: Callable[[Callable[[Transaction], bool], Answered[bool]], None],
        missed: Callable[[], None],
    ) -> None:
        self._group = group
        self._interval = lease / 4
        self._request = request
        self._missed = missed
        self._member: bytes | None = None
        self._life = self._due = self._confirmed = 0.0

    def start(self, member: bytes, joined_at: float) -> None:
        """Beats for a member that joined then."""
        self._confirmed = joined_at
        self._due = joined_at + self._interval
        self._member = member

    def stop(self) -> None:
        """No more beats."""
        self._member = None

    def live(self) -> None:
        """The loop is alive."""
        self._life = time.monotonic()

    def silent_for(self) -> float:
        """Seconds since the file confirmed last that we are a member."""
        return time.monotonic() - self._confirmed

    def confirm(self, asked_at: float) -> None:
        """The file confirmed it, to somebody who asked then."""
        self._confirmed = max(self._confirmed, asked_at)

    def tick(self) -> float:
        """Beats if it is time, and returns in how many seconds to ask again. From a thread of the file."""
        now, member = time.monotonic(), self._member
        if member is None:
            return self._interval

        if now >= self._due:
            self._due = now + self._interval
            if now - self._life <= MAX_STALL:
                self._beat(member, now)

        return self._due - now

    def answered(self, member: bytes, asked_at: float, *, alive: bool) -> None:
        """What came of a beat."""
        if alive:
            self.confirm(asked_at)
        elif member == self._member:
            self._missed()

    def _beat(self, member: bytes, now: float) -> None:
        with suppress(ThreadClosed):
            self._request(lambda transaction: claims.beat(transaction, self._group, member), _Beat(self, member, now))


class _Beat:
    """Waits for one beat's answer, in the place of a task."""

    def __init__(self, heartbeat: Heartbeat, member: bytes, asked_at: float) -> None:
        self._heartbeat = heartbeat
        self._member = member
        self._asked_at = asked_at

    def set(self, alive: bool) -> None:
        self._heartbeat.answered(self._member, self._asked_at, alive=alive)

    def fail(self, error: BaseException) -> None:
        """Nothing: the next one may get through before the lease ends."""
