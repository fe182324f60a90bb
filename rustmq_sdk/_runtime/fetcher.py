"""The task that fetches: asks the driver for what there is room for, and puts it into the buffer."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence

import anyio

from rustmq_sdk._backoff import pause_after
from rustmq_sdk._core.intake import Demand, Intake, Limits
from rustmq_sdk._core.lane import Lane, Waiting
from rustmq_sdk._core.leases import LeaseBook, Leased
from rustmq_sdk._core.piece import Piece
from rustmq_sdk._log import log
from rustmq_sdk._runtime.fetched import join_small, only, split_at_holes
from rustmq_sdk._runtime.session import Session
from rustmq_sdk.errors import TransientDriverError
from rustmq_sdk.message import Message, Settler
from rustmq_sdk.slots import Fetched
from rustmq_sdk.values import Assignment, Broken, Gone

MAX_WAIT = 1.0
"""Seconds one fetch may wait. What ends a wait earlier (data, room, pause) wakes it; this is only a rhythm for
drivers that have to be polled."""
PAUSE_AFTER_FAILURE = (0.1, 2.0)
"""Seconds after the first failure in a row, doubled up to the second number; then the circuit takes over."""


class Fetcher:
    """Keeps the buffer filled.

    Args:
        settler: whom the messages tell that they are settled.
        find_lane: the lane of an assignment; None for one that is not ours any more.
        on_broken: takes over a record that could not be decoded, before anything after it is put into the buffer.
        on_gone: takes over the report that the log lost messages, likewise.
        on_spent: takes over a queue's message that has used up its attempts, and how many these were.
        on_taken_in: something new is in flight.
        press_commit: asks for a commit because too much is uncommitted.
        look_around: called about once a second, and after each fetch.
    """

    def __init__(
        self,
        session: Session,
        *,
        settler: Settler,
        find_lane: Callable[[Assignment], Lane | None],
        on_broken: Callable[[Lane, Broken], None],
        on_gone: Callable[[Lane, Gone], None],
        on_spent: Callable[[Piece, Message, int], None],
        on_taken_in: Callable[[], None],
        press_commit: Callable[[], None],
        look_around: Callable[[], None],
    ) -> None:
        config = session.config
        self._session = session
        self._settler = settler
        self._find_lane = find_lane
        self._on_broken = on_broken
        self._on_gone = on_gone
        self._on_spent = on_spent
        self._on_taken_in = on_taken_in
        self._press_commit = press_commit
        self._look_around = look_around
        # A reader of a log without a group commits nothing, ever.
        commits = config.group is not None or session.capabilities.kind == "queue"
        self.intake = Intake(
            Limits(
                prefetch=config.prefetch,
                max_in_flight=config.max_in_flight,
                max_in_flight_bytes=config.max_in_flight_bytes,
                max_uncommitted=config.max_uncommitted if commits else sys.maxsize,
                max_span=config.max_span,
            )
        )
        self._circuit = session.circuit("source.fetch")
        # A piece is counted at the latest when its last message is settled: so a commit is not much later than asked.
        self._most = config.commit_every
        self._landed: anyio.Event | None = None
        self._wants_backlog = False
        self._wants_room = False
        self._failures = 0

    # Called from the tasks that make room

    def low(self) -> None:
        """The buffer was drawn from: wakes a fetcher that waits for room there."""
        if self._wants_backlog and self._session.buffer.backlog - self._session.buffer.withheld <= self.intake.low:
            self.kick()

    def room(self) -> None:
        """Something was settled: wakes a fetcher that waits for room."""
        if self._wants_room:
            self.kick()

    def kick(self) -> None:
        """What is wanted has changed (room, pause, seek, a new assignment): ends a waiting fetch."""
        self._wants_backlog = self._wants_room = False
        self._session.end_fetch()

    # The task

    async def run(self) -> None:
        """Fetches until cancelled."""
        while True:
            demand = self._demand()
            try:
                fetched = await self._circuit.run(self._fetch, demand, void=_is_empty)
            except (TransientDriverError, TimeoutError) as error:
                await self._pause_after(error)
                continue

            self._failures = 0
            self._look_around()
            self._wants_backlog = self._wants_room = False
            if fetched:
                self._take_in(fetched)

    async def _fetch(self, demand: Demand | None) -> Sequence[Fetched]:
        subscription = self._session.subscription
        # The demand may be old: an open circuit has kept it waiting.
        if demand is None or self._session.stopping:
            # No room, or nothing to fetch from: this only keeps the membership alive until something changes.
            return await subscription.fetch((), max_messages=1, max_bytes=1, max_wait=MAX_WAIT)

        self._landed = anyio.Event()
        try:
            return await subscription.fetch(
                [lane.ledger.assignment for lane in demand.lanes],
                max_messages=min(demand.max_messages, self._most),
                max_bytes=demand.max_bytes,
                max_wait=MAX_WAIT,
            )
        finally:
            self._landed.set()

    async def land(self) -> None:
        """After a stop: returns when no fetch is out that could still bring messages."""
        self.kick()
        if self._landed is not None:
            await self._landed.wait()

    async def _pause_after(self, error: Exception) -> None:
        first, most = PAUSE_AFTER_FAILURE
        pause = pause_after(self._failures, first=first, most=most)
        self._failures += 1
        log(logging.WARNING, "fetch_failed", "a fetch failed, trying again in %.1f s: %s", pause, error)
        await anyio.sleep(pause)

    def _demand(self) -> Demand | None:
        session = self._session
        lanes = session.lanes
        if not lanes or session.stopping:
            return None

        buffer = session.buffer
        backlog, withheld = buffer.backlog, buffer.withheld
        # Whoever makes room from now on ends the wait.
        self._wants_backlog = True
        if backlog - withheld > self.intake.low:
            return None

        if self.intake.too_much_uncommitted(lanes):
            self._press_commit()
            self._wants_backlog = False
            self._wants_room = True
            return None

        demand = self.intake.demand(lanes, backlog, withheld)
        if demand is not None and not demand.partial:
            self._wants_backlog = False
            return demand

        self._wants_room = self.intake.short_of_room(lanes)
        if demand is not None or not self._wants_room:
            return demand

        return self._look_for_room()

    def _look_for_room(self) -> Demand | None:
        """Counts again: much of what seems to be unsettled may be settled since."""
        session, buffer = self._session, self._session.buffer
        for lane in session.lanes:
            session.recount(lane.ledger)

        demand = self.intake.demand(session.lanes, buffer.backlog, buffer.withheld)
        if demand is None and not buffer.runnable and not buffer.ready:
            # Receivers wait for us, and we for the very next ack, whichever it is.
            for lane in session.lanes:
                lane.ledger.watch_everything()

        return demand

    # What came

    def _take_in(self, fetched: Sequence[Fetched]) -> None:
        for piece in join_small(fetched):
            lane = self._find_lane(piece.assignment)
            # A piece of an assignment that is over: its messages are, or will be, somebody else's.
            if lane is None:
                continue

            if isinstance(lane.ledger, LeaseBook):
                self._take_leased(lane, lane.ledger, piece)
            elif piece.broken or piece.gone:
                self._take_holes(lane, piece)
            else:
                self._take_piece(lane, piece)

        self._on_taken_in()
        self._session.wake_receiver()

    def _take_piece(self, lane: Lane, fetched: Fetched) -> None:
        taken, cut = self._admit(lane, fetched)
        if taken is None:
            return

        session = self._session
        again = _later_attempts(taken)
        session.counts.redelivered += again
        session.counts.received += len(taken) - taken.counted - (again if isinstance(taken, Leased) else 0)
        session.observers("received", lane.ledger.assignment.tp, len(taken) - taken.counted, taken.size)
        records = fetched.records[cut:] if cut else fetched.records
        session.buffer.push(Waiting(taken, records, fetched.build))

    def _admit(self, lane: Lane, fetched: Fetched) -> tuple[Piece | None, int]:
        size, largest, owner = fetched.size, fetched.largest, self._settler
        if isinstance(lane.ledger, LeaseBook):
            return lane.ledger.lease(fetched.receipts, fetched.attempts, size=size, largest=largest, owner=owner), 0

        return lane.log.admit(fetched.offsets, fetched.next_offset, size=size, largest=largest, owner=owner)

    def _take_leased(self, lane: Lane, book: LeaseBook, fetched: Fetched) -> None:
        """A queue has no order to keep, and nothing that could not be decoded: it hands out the bytes."""
        for gone in fetched.gone:
            self._on_gone(lane, gone)

        spent = book.spent(fetched.receipts)
        self._take_piece(lane, only(fetched, [index for index in range(len(fetched.records)) if index not in spent]))
        for index, attempts in spent.items():
            piece, _ = self._admit(lane, only(fetched, [index]))
            if piece is not None:
                self._on_spent(piece, fetched.build([fetched.records[index]], piece, 0)[0], attempts)

    def _take_holes(self, lane: Lane, fetched: Fetched) -> None:
        """Splits the piece around what cannot be delivered, which is a piece of its own: offsets stay in order."""
        for part, hole in split_at_holes(fetched):
            self._take_piece(lane, part)
            if isinstance(hole, Broken):
                self._on_broken(lane, hole)
            elif hole is not None:
                self._on_gone(lane, hole)


def _later_attempts(piece: Piece) -> int:
    """Messages that come from the broker as attempt 2 or later: from a queue, or after a restart."""
    if isinstance(piece, Leased):
        return sum(attempt > 1 for attempt in piece.attempts)

    due, offsets = piece.ledger.due_attempts, piece.offsets
    return sum(offsets[0] <= offset <= offsets[-1] for offset in due)


def _is_empty(fetched: Sequence[Fetched]) -> bool:
    # A dead cluster answers with nothing as well: it says nothing about its health.
    return not fetched
