"""Which partitions are ours: what the driver tells, and what the user does to them (pause, seek)."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import TypeVar

import anyio
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from rustmq_sdk._core.checkpoint import CorruptCheckpoint, Remembered, decode
from rustmq_sdk._core.lane import Lane
from rustmq_sdk._core.leases import LeaseBook
from rustmq_sdk._core.ledger import Ledger
from rustmq_sdk._core.log_book import LogBook
from rustmq_sdk._core.ownership import Ownership
from rustmq_sdk._log import log
from rustmq_sdk._runtime.acknowledger import Acknowledger
from rustmq_sdk._runtime.failures import Failures
from rustmq_sdk._runtime.rebalance import Rebalance
from rustmq_sdk._runtime.redelivery import Redelivery
from rustmq_sdk._runtime.session import Session
from rustmq_sdk._runtime.settler import LedgerSettler
from rustmq_sdk._runtime.spills import Spills
from rustmq_sdk._runtime.starts import Start, find_starts
from rustmq_sdk.errors import ConsumerStateError, TransientDriverError
from rustmq_sdk.values import Assignment, Checkpoint, TopicPartition

T = TypeVar("T")

DRAIN_SHARE = 0.8
"""Of the revoke budget that handlers may use; the rest is for the commit."""
ATTEMPTS = 20
"""Of a control call (committed positions, start offsets) before the driver is told that it failed: about a minute."""


class Partitions:
    """Fills ``AssignmentListener``: called serially by the driver."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.ownership = Ownership()
        self.spills = Spills(session, session.config.state_store)
        self.paused: set[TopicPartition] = set()
        self.rebalance = Rebalance(session, self.ownership)
        self.arrived = anyio.Event()
        """The first assignment is there."""
        self._drain = anyio.CancelScope()
        self._acknowledger: Acknowledger
        self._settler: LedgerSettler
        self._redelivery: Redelivery
        self._failures: Failures
        self._kick_fetcher: Callable[[], None]
        self._pin: Callable[[Collection[LogBook]], None]

    def connect(
        self,
        *,
        acknowledger: Acknowledger,
        settler: LedgerSettler,
        redelivery: Redelivery,
        failures: Failures,
        kick_fetcher: Callable[[], None],
        pin: Callable[[Collection[LogBook]], None],
    ) -> None:
        """The parts know each other. ``pin``: has the broker know where these begin."""
        self._acknowledger = acknowledger
        self._settler = settler
        self._redelivery = redelivery
        self._failures = failures
        self._kick_fetcher = kick_fetcher
        self._pin = pin

    # What the driver tells

    async def assigned(
        self, partitions: Collection[TopicPartition], generation: int | None, *, reason: str = "assigned"
    ) -> Mapping[Assignment, int | None]:
        """Makes the assignments and says where to start."""
        committed = await self._committed(partitions)
        kept = {
            tp: ledger
            for tp in partitions
            if (ledger := self.ownership.comes_back(tp, generation, committed.get(tp))) is not None
        }
        fresh = [tp for tp in partitions if tp not in kept]
        # Nothing is changed before the last answer is there: a driver that is told of a failure tries all of it again.
        starts = await self._starts(fresh, committed)
        for tp in fresh:
            self._report_moved(tp, generation, committed.get(tp))

        answer: dict[Assignment, int | None]
        answer = {self._continue(tp, generation, ledger): ledger.scanned for tp, ledger in kept.items()}
        answer |= self._start(generation, starts)
        inbox = self._acknowledger.inbox
        inbox.bound = max(inbox.bound, 2 * len(self._session.buffer.lanes))
        names = ", ".join(map(str, partitions))
        log(logging.INFO, "rebalanced", "assigned %s (generation %s, %s)", names, generation, reason)
        self._session.observers("rebalanced", tuple(partitions), (), reason)
        self._kick_fetcher()
        self.arrived.set()
        return answer

    def _report_moved(self, tp: TopicPartition, generation: int | None, committed: Checkpoint | None) -> None:
        before = self.ownership.moved(tp, generation, committed)
        if before is not None:
            text = "%s: its committed position is %s, and this consumer has written %s: it starts over, as it is told"
            position = committed.offset if committed is not None else "gone"
            log(logging.WARNING, "position_moved", text, tp, position, before.offset)

    def _continue(self, tp: TopicPartition, generation: int | None, ledger: Ledger) -> Assignment:
        """The same ledger goes on: what runs is adopted, and nothing of it is fetched again."""
        assignment = Assignment(tp, self.ownership.epoch(tp, generation))
        ledger.assignment = assignment
        # Their messages are under the new fence too: a store that has seen it would refuse the old one for ever.
        for piece in (*ledger.open.values(), *ledger.children.values()):
            piece.assignment = assignment

        self.ownership.assign(tp, generation, ledger)
        lane = self._session.buffer.lanes[ledger]
        lane.draining = False
        self._session.buffer.resume(lane)
        self._session.wake_receiver()
        return assignment

    async def _starts(
        self, partitions: Collection[TopicPartition], committed: Mapping[TopicPartition, Checkpoint | None]
    ) -> dict[TopicPartition, Start | None]:
        """Where each begins; None for a queue, whose broker decides."""
        starts: dict[TopicPartition, Start | None] = dict.fromkeys(partitions)
        if self._session.capabilities.kind == "log":
            unknown = [tp for tp in partitions if committed.get(tp) is None]
            starts |= await find_starts(self._session, self._ask, unknown)
            for tp in partitions:
                if (found := committed.get(tp)) is not None:
                    starts[tp] = Start(found.offset, committed=found, remembered=await self._remembered(tp, found))

        return starts

    def _start(
        self, generation: int | None, starts: Mapping[TopicPartition, Start | None]
    ) -> dict[Assignment, int | None]:
        answer: dict[Assignment, int | None] = {}
        movable: list[LogBook] = []
        for tp, start in starts.items():
            self._drop(tp)
            assignment = Assignment(tp, self.ownership.epoch(tp, generation))
            ledger = LeaseBook(assignment) if start is None else start.ledger(assignment)
            if isinstance(ledger, LogBook) and ledger.must_write:
                movable.append(ledger)

            self.ownership.assign(tp, generation, ledger)
            self._session.buffer.add(Lane(ledger, paused=tp in self.paused))
            answer[assignment] = None if start is None else ledger.scanned

        if movable:
            self._pin(movable)

        return answer

    async def revoking(self, assignments: Collection[Assignment], budget: float) -> None:
        """Waits for what handlers hold, inside the budget, then commits what is settled."""
        session = self._session
        lanes = self._lanes(assignments)
        for lane in lanes:
            lane.draining = True
            session.buffer.hold(lane)

        self.rebalance.revokes()
        try:
            if not session.closing:
                with anyio.move_on_after(budget * DRAIN_SHARE) as self._drain:
                    await self.drained(lanes)
                    # Each stands for a message that the next owner would handle, although it is in the dead letters.
                    await self._failures.letters_written(self._ledgers(assignments))

            if not session.closing:
                with anyio.move_on_after(budget * (1 - DRAIN_SHARE)):
                    await self._acknowledger.commit_now(self._ledgers(assignments))
        finally:
            for ledger in self._ledgers(assignments):
                self.ownership.release(ledger.assignment)

            self.rebalance.revoked()

        tps = [assignment.tp for assignment in assignments]
        log(logging.INFO, "rebalanced", "revoked %s", ", ".join(map(str, tps)))

    def _ledgers(self, assignments: Collection[Assignment]) -> list[Ledger]:
        # By partition: a seek while handlers finish gives it another assignment, which is on its way out as well.
        return [ledger for assignment in assignments if (ledger := self.ownership.get(assignment.tp)) is not None]

    def hurry(self) -> None:
        """The consumer leaves: a revoke waits for handlers no longer.

        Drivers whose client finishes its rebalance before it leaves would wait for the revoke, and be cut off.
        """
        self._drain.cancel()

    async def drained(self, lanes: Collection[Lane]) -> None:
        """Waits until nothing of the lanes is in anybody's hands. Messages in backoff are not waited for."""
        session, buffer = self._session, self._session.buffer
        while not (session.closing or session.abandoned) and any(buffer.handed_out(lane) > 0 for lane in lanes):
            for lane in lanes:
                lane.ledger.watch_everything()

            await self._settler.wait_for_progress()

    async def lost(self, assignments: Collection[Assignment], *, reason: str = "lost") -> None:
        """Fences: late settling answers STALE from here on."""
        gone = [assignment.tp for assignment in assignments if self._lose(assignment)]
        if gone:
            log(logging.INFO, "rebalanced", "lost %s (%s)", ", ".join(map(str, gone)), reason)
            self._session.observers("rebalanced", (), gone, reason)

    def fenced(self, assignment: Assignment) -> None:
        """A commit said so before the driver did."""
        if self._lose(assignment):
            log(logging.WARNING, "rebalanced", "%s belongs to somebody else now", assignment.tp)
            self._session.observers("rebalanced", (), (assignment.tp,), "fenced")

    def _lose(self, assignment: Assignment) -> bool:
        if self.ownership.known(assignment) is None:
            return False

        self._drop(assignment.tp)
        return True

    def _drop(self, tp: TopicPartition) -> None:
        ledger = self.ownership.forget(tp)
        if ledger is None:
            return

        self._discard(ledger)

    def _discard(self, ledger: Ledger) -> None:
        self._session.recount(ledger)
        self._session.counts.settled += ledger.settled_for_good
        ledger.fence()
        self._session.buffer.remove(ledger)
        self._redelivery.forget(ledger)
        self._failures.forget(ledger)
        self._acknowledger.forget(ledger)
        # A seek, or a loss, while handlers are waited for: there is nothing of theirs to wait for any more.
        self._settler.note_progress()
        # Handlers of a key-ordered run may wait for a message that will not come any more.
        self._session.wake_receivers()

    def close(self) -> None:
        """The consumer has left: what is still in somebody's hands comes again, so its handles are stale."""
        self._session.held_at_close = frozenset(ledger.assignment for ledger in self.ownership.all())
        for ledger in self.ownership.all():
            self._drop(ledger.assignment.tp)

        self._acknowledger.end_round()

    # What the runtime asks

    def lane(self, assignment: Assignment) -> Lane | None:
        """The lane of an assignment that is ours right now."""
        ledger = self.ownership.ledger_of(assignment)
        return self._session.buffer.lanes.get(ledger) if ledger is not None else None

    def lane_of(self, tp: TopicPartition) -> Lane:
        """The lane of a partition; ``ConsumerStateError`` if it is not ours."""
        ledger = self.ownership.get(tp)
        if ledger is None:
            assigned = ", ".join(str(ledger.assignment.tp) for ledger in self.ownership.current()) or "none"
            raise ConsumerStateError(
                f"{tp} is not assigned to this consumer (assigned: {assigned}). Look at assigned_partitions first"
            )

        return self._session.buffer.lanes[ledger]

    def _lanes(self, assignments: Collection[Assignment]) -> list[Lane]:
        return [lane for assignment in assignments if (lane := self.lane(assignment)) is not None]

    # What the user does

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        """Nothing of these is handed out from here on; what was fetched is kept."""
        self.paused.update(partitions)
        for tp in partitions:
            lane = self._find(tp)
            if lane is not None:
                lane.paused = True
                self._session.buffer.hold(lane)

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        """Lifts the user's pause where there is one; else tries again what a partition had stopped for.

        One state a call: code that pauses and resumes to hold back the flow must not, by the way, give up a record
        that its partition has stopped for.
        """
        self.paused.difference_update(partitions)
        for tp in frozenset(partitions):
            lane = self._find(tp)
            if lane is not None:
                if lane.paused and lane.stopped is not None:
                    text = "the pause is lifted; resume it once more to lift the stop as well: %s"
                    log(logging.WARNING, "still_stopped", text, lane.stopped)
                elif lane.stopped is not None:
                    self._failures.resume(lane)

                lane.paused = False
                self._session.buffer.resume(lane)

        self._session.wake_receivers()

    def _find(self, tp: TopicPartition) -> Lane | None:
        ledger = self.ownership.get(tp)
        return self._session.buffer.lanes.get(ledger) if ledger is not None else None

    def restarted(self, tp: TopicPartition) -> Assignment:
        """The assignment that a seek would make; ``ConsumerStateError`` if there were too many already."""
        return Assignment(tp, self.ownership.epoch(tp, self.ownership.generation(tp)))

    def seek(self, tp: TopicPartition, offset: int) -> None:
        """Starts the partition over at ``offset``, under a new epoch: everything in flight is stale."""
        lane = self.lane_of(tp)
        before = lane.log
        assignment = self.restarted(tp)
        ledger = LogBook(assignment, offset)
        ledger.on_broker = before.on_broker
        # The user's word counts even downwards: the next commit says the new position, lower or higher.
        ledger.must_write = True
        self.ownership.restart(tp, ledger)
        self._discard(before)
        self._session.buffer.add(Lane(ledger, paused=tp in self.paused, draining=lane.draining))
        self._session.log.seek(before.assignment, assignment, offset)
        self._acknowledger.tell_later()
        self._kick_fetcher()

    # Where to start

    async def _committed(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, Checkpoint | None]:
        if self._session.config.group is None or self._session.capabilities.kind == "queue":
            return {}

        return await self._ask(self._session.log.committed, partitions)

    async def _remembered(self, tp: TopicPartition, checkpoint: Checkpoint) -> Remembered:
        try:
            remembered = decode(checkpoint.offset, checkpoint.extra)
        except CorruptCheckpoint as error:
            # Safe: the position itself is valid, and what was settled above it runs again.
            log(logging.WARNING, "checkpoint_unreadable", "%s: %s", tp.at(checkpoint.offset), error)
            return Remembered()

        return await self.spills.recall(tp, checkpoint.offset, remembered)

    async def _ask(self, operation: Callable[..., Awaitable[T]], *args: object) -> T:
        return await patiently(self._session.config.commit_timeout, operation, *args)


async def patiently(timeout: float, operation: Callable[..., Awaitable[T]], *args: object) -> T:
    """A control call, tried again while it fails for reasons that may pass; each try has ``timeout`` seconds."""
    async for attempt in AsyncRetrying(
        retry=retry_if_exception_type((TransientDriverError, TimeoutError)),
        wait=wait_random_exponential(multiplier=0.1, max=5),
        stop=stop_after_attempt(ATTEMPTS),
        reraise=True,
    ):
        with attempt, anyio.fail_after(timeout):
            return await operation(*args)

    raise AssertionError("unreachable: the last attempt returns or raises")
