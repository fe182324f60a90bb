"""Handing messages out: the slow path of ``receive()``, and the tasks that wait there.

The fast path is one ``list.pop`` in ``Consumer.receive``. Nothing here suspends after a message was popped, so a
cancelled receive, by a scope, by ``task.cancel()`` or by ``asyncio.timeout``, has not taken anything.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import NoReturn, TypeAlias

import anyio
import anyio.lowlevel

from rustmq_sdk._core.piece import Piece
from rustmq_sdk._log import log
from rustmq_sdk._runtime.session import Session
from rustmq_sdk.errors import ConsumerStateError
from rustmq_sdk.message import AnyPiece, Message, Messages, Span

CHECKPOINT_EVERY = 256
"""Messages between checkpoints: 2.5 to 4 us each (asyncio, trio), 0.01 to 0.02 us a message at this distance."""
QUIET = 5.0
"""Seconds without a first message after which one line says what is waited for."""

Pop: TypeAlias = Callable[[], Message]
TakeBatch: TypeAlias = Callable[[int, float], tuple[list[Message], list[Span]]]


def nothing() -> NoReturn:
    """Takes the place of the buffer's pop where receive() has to look closer first."""
    raise IndexError


def popping(session: Session, pop: Pop) -> Pop:
    """``pop``, which with ``ack_timeout`` notes when each message is handed out, and not when it is built.

    Between the two it may wait as long as it likes: parked for its key, or until somebody asks.
    """
    if session.config.ack_timeout is None:
        return pop

    def pop_and_note() -> Message:
        message = pop()
        _note(message._piece, message._index, message._index + 1, session.clock())
        return message

    return pop_and_note


def _note(piece: AnyPiece, first: int, end: int, now: float) -> None:
    assert isinstance(piece, Piece)
    piece.handed_out(first, end, now)


class Delivery:
    """Refills what is at hand, and lets tasks wait for more.

    Args:
        low: called when the buffer may want more from the broker.
        explain: what is waited for, in one line.
    """

    def __init__(self, session: Session, *, low: Callable[[], None], explain: Callable[[], str]) -> None:
        self._session = session
        self._buffer = session.buffer
        self._low = low
        self._explain = explain
        self._waiters: deque[anyio.Event] = deque()
        # Who has messages and waits for more: woken only where nobody is without, so that no wake is lost on them.
        self._patient: deque[anyio.Event] = deque()
        self._since_checkpoint = 0
        self._quiet_reported = False
        self._quiet_since: float | None = None
        session.wake_receivers = self.wake_all
        session.wake_receiver = self.wake

    @property
    def waiting(self) -> int:
        """Tasks that wait for a message."""
        return len(self._waiters)

    async def next(self, pop: Pop) -> Message:
        """The next message by ``pop``, which raises IndexError when none is at hand."""
        session, buffer = self._session, self._buffer
        session.require_thread("receive()")
        while True:
            session.check()
            if self._since_checkpoint >= CHECKPOINT_EVERY:
                self._since_checkpoint = 0
                await anyio.lowlevel.checkpoint()
                # A stop or a failure that came meanwhile has woken those who wait, and we do not yet.
                continue

            try:
                message = pop()
            except IndexError:
                pass
            else:
                self._pass_on()
                return message

            loaded = buffer.load(session.clock())
            if loaded:
                # Counted before the pop: at least this often, also where pieces are larger.
                self._since_checkpoint += loaded
                self._low()
            else:
                session.require_loop("receive()")
                # Asked here again: when the last load was made, all of it still counted as backlog.
                self._low()
                await self._wait()

    async def next_batch(self, take: TakeBatch, most: int, max_wait: float) -> Messages:
        """Waits for the first message, then at most ``max_wait`` seconds for ``most``."""
        session, buffer = self._session, self._buffer
        # The fetcher waits until half of the prefetch is used up, so more than that need never come together.
        enough = min(most, max(1, session.config.prefetch // 2))
        while True:
            if self._since_checkpoint >= CHECKPOINT_EVERY:
                self._since_checkpoint = 0
                await anyio.lowlevel.checkpoint()

            session.check()
            at_hand = buffer.deliverable(enough)
            if at_hand < enough:
                session.require_loop("receive_batch()")
                self._low()
                if not at_hand:
                    await self._wait()
                    continue

                # What is at hand stays there meanwhile: somebody who wants just one message may have it.
                self._pass_on()
                await self._wait_for(enough, max_wait)
                session.check()

            batch = self._taken(take, most)
            if batch is not None:
                return batch

    def batch_at_hand(self, take: TakeBatch, most: int) -> Messages | None:
        """What can be handed out now; None if that is nothing.

        Taken in one synchronous step: while somebody waits for a full batch, the messages stay where they are.
        """
        self._session.check()
        return self._taken(take, most)

    def _taken(self, take: TakeBatch, most: int) -> Messages | None:
        now = self._session.clock()
        messages, spans = take(most, now)
        if not messages:
            return None

        if self._session.config.ack_timeout is not None:
            for piece, first, end in spans:
                _note(piece, first, end, now)

        self._since_checkpoint += len(messages)
        self._low()
        self._pass_on()
        return Messages(messages, spans)

    def wake(self) -> None:
        """A message may be there: wakes one task, which wakes the next when it leaves some.

        Waking all would cost 6 us a message with 1,000 receivers.
        """
        waiters = self._waiters or self._patient
        if waiters:
            waiters.popleft().set()

    def wake_all(self) -> None:
        """Something everybody has to know: a failure, a stop."""
        for waiters in (self._waiters, self._patient):
            while waiters:
                waiters.popleft().set()

    def _pass_on(self) -> None:
        if self._buffer.ready or self._buffer.runnable:
            self.wake()

    async def _wait_for(self, enough: int, max_wait: float) -> None:
        with anyio.move_on_after(max_wait):
            while self._buffer.deliverable(enough) < enough and not self._session.stopping:
                await self._sleep(self._patient)

    async def _wait(self) -> None:
        # Looking for a message may have come to the place where the last partition stops.
        self._session.check()
        self._refuse_deadlock()
        if self._quiet_reported or self._session.counts.received:
            await self._sleep(self._waiters)
            return

        # From the first wait on: a program that asks for a second at a time waits as long as one that asks once.
        now = self._session.clock()
        if self._quiet_since is None:
            self._quiet_since = now

        with anyio.move_on_after(self._quiet_since + QUIET - now):
            await self._sleep(self._waiters)
            return

        if not (self._session.counts.received or self._quiet_reported):
            self._quiet_reported = True
            log(logging.INFO, "quiet", "no message for %g s: %s", QUIET, self._explain())

    async def _sleep(self, waiters: deque[anyio.Event]) -> None:
        event = anyio.Event()
        waiters.append(event)
        try:
            await event.wait()
        except BaseException:
            # Cancelled although woken: the wake was for a message, and somebody else has to take it.
            if event.is_set():
                self.wake()
            else:
                waiters.remove(event)

            raise

    def _refuse_deadlock(self) -> None:
        session = self._session
        config = session.config
        if config.auto_commit or config.group is None:
            return

        uncommitted = sum(lane.ledger.uncommitted for lane in session.lanes)
        if uncommitted >= config.max_uncommitted:
            raise ConsumerStateError(
                f"{uncommitted} settled messages are not committed (max_uncommitted={config.max_uncommitted}) and "
                "auto_commit is off, so nothing more can be received. Call await consumer.commit()"
            )
