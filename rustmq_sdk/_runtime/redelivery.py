"""The task that brings nacked messages back when their time has come.

A retry's body comes from the cache, or, when that has let it go, from the log itself by partition and offset: a retry
is always the real message. The task also looks for messages that nobody settles (``stall_after``, ``ack_timeout``).
"""

from __future__ import annotations

import heapq
import logging
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

import anyio

from rustmq_sdk._bell import Bell
from rustmq_sdk._core.leases import LeaseBook
from rustmq_sdk._core.ledger import Ledger
from rustmq_sdk._core.piece import Piece
from rustmq_sdk._log import log
from rustmq_sdk._runtime.breaker import MAY_PASS
from rustmq_sdk._runtime.cache import Body, MessageCache
from rustmq_sdk._runtime.session import Session
from rustmq_sdk.message import STALE, Message
from rustmq_sdk.slots import Fetched
from rustmq_sdk.values import Broken, Gone

READ_AGAIN_AFTER = 1.0
"""Seconds before the log is asked again for a body that it could not give; the circuit lengthens that."""


@dataclass(order=True, slots=True)
class ScheduledRetry:
    """One message waiting for its next attempt."""

    due: float
    number: int
    parent: Piece = field(compare=False)
    index: int = field(compare=False)
    attempt: int = field(compare=False)
    """The attempt that it will be."""
    exhausted: bool = field(default=False, compare=False)
    """There will be no further attempt: the body is wanted for the dead letter."""

    @property
    def offset(self) -> int:
        """Where the message is in its partition."""
        return self.parent.offsets[self.index]

    @property
    def is_over(self) -> bool:
        """The partition was lost or moved by a seek."""
        return self.parent[self.index] == STALE


class Redelivery:
    """Keeps retries until they are due.

    Args:
        on_gone: the log no longer has the body of a message that waits for its retry.
        on_broken: the log has it, but it cannot be decoded any more.
        on_exhausted: the message timed out too often, and this is its body.
        on_evicted: the cache has let the body go, and a queue cannot be asked for it.
        inspect: looks for messages nobody settles; answers the seconds until the next look, None for not before
            something is in flight again.
    """

    def __init__(
        self,
        session: Session,
        *,
        on_gone: Callable[[ScheduledRetry, Gone], None],
        on_broken: Callable[[ScheduledRetry, Broken], None],
        on_exhausted: Callable[[ScheduledRetry, Message], None],
        on_evicted: Callable[[ScheduledRetry], None],
        inspect: Callable[[float], float | None],
    ) -> None:
        config = session.config
        self._session = session
        self._on_gone = on_gone
        self._on_broken = on_broken
        self._on_exhausted = on_exhausted
        self._on_evicted = on_evicted
        self._inspect = inspect
        self._heap: list[ScheduledRetry] = []
        self._numbers = count()
        self._bell = Bell()
        self._resting = True
        self.cache = MessageCache(config.cache_messages, config.cache_bytes, config.cache_ttl, session.clock)

    @property
    def waiting(self) -> int:
        """Messages waiting for their next attempt."""
        return len(self._heap)

    def add(self, message: Message, parent: Piece, index: int, *, attempt: int, delay: float) -> None:
        """The message comes again as ``attempt`` in ``delay`` seconds."""
        retry = ScheduledRetry(self._session.clock() + delay, next(self._numbers), parent, index, attempt)
        body = Body(message.payload, message.key, message.headers, message.timestamp)
        self.cache.put((parent.ledger, retry.offset), body)
        heapq.heappush(self._heap, retry)
        self._bell.ring()

    def read_later(self, parent: Piece, index: int, *, attempt: int, exhausted: bool) -> None:
        """The message comes again, or is given up, as soon as the log was asked for it."""
        retry = ScheduledRetry(self._session.clock(), next(self._numbers), parent, index, attempt, exhausted)
        heapq.heappush(self._heap, retry)
        self._bell.ring()

    def at_once(self, message: Message, parent: Piece, index: int, *, attempt: int) -> None:
        """The message comes again now: it is at hand."""
        body = Body(message.payload, message.key, message.headers, message.timestamp)
        self._deliver(parent, index, attempt, body)

    def forget(self, ledger: Ledger) -> None:
        """A partition was lost or moved: its retries are somebody else's, or start over."""
        self._heap = [retry for retry in self._heap if retry.parent.ledger is not ledger]
        heapq.heapify(self._heap)
        self.cache.forget(ledger)

    def inspect_now(self) -> None:
        """Has it inspect now."""
        self._bell.ring()

    def arm(self) -> None:
        """Something is in flight: from now on somebody has to look whether it is settled."""
        if self._resting:
            self._resting = False
            self._bell.ring()

    async def run(self) -> None:
        """Delivers what is due, until cancelled."""
        while True:
            now = self._session.clock()
            pause = self._inspect(now)
            self._resting = pause is None
            if self._heap:
                until_due = max(0.0, self._heap[0].due - now)
                pause = until_due if pause is None else min(pause, until_due)

            await self._bell.wait(pause)
            self.cache.expire()
            await self._deliver_due(self._session.clock())

    async def _deliver_due(self, now: float) -> None:
        missing: dict[Ledger, list[ScheduledRetry]] = defaultdict(list)
        while self._heap and self._heap[0].due <= now:
            retry = heapq.heappop(self._heap)
            if retry.is_over:
                continue

            body = self.cache.take((retry.parent.ledger, retry.offset))
            if body is None:
                missing[retry.parent.ledger].append(retry)
            else:
                self._deliver(retry.parent, retry.index, retry.attempt, body)

        for ledger, retries in missing.items():
            if isinstance(ledger, LeaseBook):
                for retry in retries:
                    self._on_evicted(retry)

                continue

            await self._read_again(ledger, sorted(retries, key=lambda retry: retry.offset))

    def _deliver(self, parent: Piece, index: int, attempt: int, body: Body) -> None:
        ledger = parent.ledger
        lane = self._session.buffer.lanes.get(ledger)
        if lane is None:
            return

        child = ledger.retry(parent, index, attempt)
        child.loaded_at = self._session.clock()
        offset = None if isinstance(ledger, LeaseBook) else parent.offsets[index]
        message = Message(body.payload, body.key, body.headers, offset, body.timestamp, child, 0)
        self._session.counts.redelivered += attempt > 1
        self._session.buffer.push_front(lane, [message])
        self._session.wake_receiver()

    # Bodies the cache has let go

    async def _read_again(self, ledger: Ledger, retries: list[ScheduledRetry]) -> None:
        # From here until the answer the retries are in no heap: an error, or a cancellation at shutdown (where it does
        # not matter any more), must put them back.
        try:
            offsets = [retry.offset for retry in retries]
            fetched = await self._session.circuit("source.read").run_or_raise(self._read, ledger, offsets)
        except MAY_PASS as error:
            log(logging.WARNING, "read_failed", "%s: reading for a retry: %r", ledger.assignment.tp, error)
            self._again_later(retries)
            return

        left = {retry.offset: retry for retry in retries if not retry.is_over}
        self._deliver_read(fetched, left)
        for broken in fetched.broken:
            if broken.offset in left:
                self._on_broken(left.pop(broken.offset), broken)

        for gone in fetched.gone:
            for offset in [offset for offset in left if gone.first <= offset < gone.end]:
                self._on_gone(left.pop(offset), gone)

        # Neither there nor reported gone: the driver read less than was asked for.
        self._again_later(list(left.values()))

    async def _read(self, ledger: Ledger, offsets: list[int]) -> Fetched:
        # The other retries wait behind this one, so it may not take for ever.
        with anyio.fail_after(self._session.config.commit_timeout):
            return await self._session.log.read(ledger.assignment, offsets)

    def _deliver_read(self, fetched: Fetched, left: dict[int, ScheduledRetry]) -> None:
        for offset, record in zip(fetched.offsets, fetched.records, strict=True):
            retry = left.pop(offset, None)
            if retry is not None:
                found = fetched.build([record], retry.parent, retry.index)[0]
                body = Body(found.payload, found.key, found.headers, found.timestamp)
                if retry.exhausted:
                    self._on_exhausted(retry, found)
                else:
                    self._deliver(retry.parent, retry.index, retry.attempt, body)

    def _again_later(self, retries: list[ScheduledRetry]) -> None:
        for retry in retries:
            retry.due = self._session.clock() + READ_AGAIN_AFTER
            heapq.heappush(self._heap, retry)
