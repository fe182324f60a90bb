"""What becomes of a message that was not acked: a retry, a dead letter, or, without a route, a stopped partition.

No branch here ends without the message being somewhere: in the redelivery's heap, in the dead-letter writer's queue,
or stuck at its partition, which then waits for somebody.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias

from rustmq_sdk._core.lane import Lane, Obstacle
from rustmq_sdk._core.leases import Leased, Return, Tried
from rustmq_sdk._core.ledger import Ledger
from rustmq_sdk._core.piece import Piece, piece_of
from rustmq_sdk._core.retry import decide
from rustmq_sdk._error_text import name_and_text, stack_of, text_of
from rustmq_sdk._log import log
from rustmq_sdk._runtime.dead_letters import DeadLetterWriter, Letter
from rustmq_sdk._runtime.redelivery import Redelivery, ScheduledRetry
from rustmq_sdk._runtime.session import Session
from rustmq_sdk.errors import PartitionStopped
from rustmq_sdk.message import OPEN, STALE, Message, Settler
from rustmq_sdk.values import DeadLetter, TopicPartition

STACK_BYTES = 8192
"""Of a traceback that travel in a dead letter's header: enough to see, small beside Kafka's 1 MiB a record."""
NO_ROUTE = (
    "Give the consumer dead_letter_topic=… or dead_letters=… and restart it, or repair the cause and call "
    "consumer.resume_partitions(…) to try the message again"
)


@dataclass(slots=True, eq=False)
class Stuck:
    """A message that its partition stopped for, and what resuming the partition does about it."""

    kind: Literal["retry", "letter", "accept", "restart"]
    parent: Piece
    index: int
    message: Message | None = None
    letter: Letter | None = None
    restart: int | None = None
    """Where the partition's log begins now."""

    @property
    def is_over(self) -> bool:
        """The partition, or the message's lease, was lost: it is delivered again, by whoever has it now."""
        return self.parent[self.index] == STALE


Stop: TypeAlias = Callable[[Ledger, Stuck, str, str], None]
"""Stops a partition for what is stuck, with the reason and what to do about it."""


class Failures:
    """Routes failed messages. Wired to its neighbours by ``connect``: they know each other."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._stuck: dict[Ledger, list[Stuck]] = defaultdict(list)
        self._redelivery: Redelivery
        self._letters: DeadLetterWriter | None
        self._settler: Settler
        self._settle_slot: Callable[[Piece, int], None]
        self._tell_soon: Callable[[], None]
        self.start_over: Callable[[TopicPartition, int], None]

    def connect(
        self,
        *,
        redelivery: Redelivery,
        letters: DeadLetterWriter | None,
        settler: Settler,
        settle_slot: Callable[[Piece, int], None],
        tell_soon: Callable[[], None],
        start_over: Callable[[TopicPartition, int], None],
    ) -> None:
        """Introduces the neighbours.

        Args to name: ``letters`` is None where there is no route; ``tell_soon`` has a queue know soon of what goes
        back; ``start_over`` has a partition read from another offset on.
        """
        self._redelivery = redelivery
        self._letters = letters
        self._settler = settler
        self._settle_slot = settle_slot
        self._tell_soon = tell_soon
        self.start_over = start_over

    # From handlers

    def failed(self, message: Message, delay: float | None, reason: str | None, error: Exception | None) -> None:
        """A nack: another attempt, or none."""
        piece = piece_of(message)
        attempt = piece.attempt_at(message._index)
        wait = decide(self._session.config.retry, attempt, error, delay=delay, rng=self._session.rng)
        if wait is None:
            self._give_up(message, reason or _because(error, f"gave up after attempt {attempt}"), error)
            return

        ledger = piece.ledger
        parent, index = ledger.take(piece, message._index)
        offset = parent.offsets[index]
        if isinstance(parent, Leased) and self._session.capabilities.delayed_nack:
            self._give_back(parent, index, Return(wait), Tried(attempt, spent=False))
        else:
            ledger.attempts[offset] = attempt
            ledger.first_failures.setdefault(offset, self._session.wall())
            self._redelivery.add(message, parent, index, attempt=attempt + 1, delay=wait)

        self._session.observers("retried", ledger.assignment.tp, message.offset, attempt, wait)

    def rejected(self, message: Message, reason: str | None, error: Exception | None) -> None:
        """Straight to the dead letters."""
        self._give_up(message, reason or _because(error, "rejected"), error)

    def released(self, message: Message) -> None:
        """Comes again at once, as the attempt that it was."""
        piece = piece_of(message)
        parent, index = piece.ledger.take(piece, message._index)
        self._redelivery.at_once(message, parent, index, attempt=piece.attempt_at(message._index))

    def timed_out(self, piece: Piece, index: int) -> None:
        """Handed out and not settled within ``ack_timeout``: the handle is void and an attempt is counted.

        The body is in nobody's reach any more, so the retry is read again from the log; a queue brings it again.
        """
        ledger = piece.ledger
        attempt = piece.attempt_at(index)
        parent, root = ledger.take(piece, index)
        offset = parent.offsets[root]
        exhausted = attempt >= self._session.config.retry.max_attempts
        if isinstance(parent, Leased):
            self._give_back(parent, root, Return(), Tried(attempt, spent=exhausted))
        else:
            ledger.attempts[offset] = attempt
            ledger.first_failures.setdefault(offset, self._session.wall())
            self._redelivery.read_later(parent, root, attempt=attempt + 1, exhausted=exhausted)

        log(logging.WARNING, "ack_timeout", "%s: attempt %d timed out", parent.place_at(root), attempt)
        self._session.observers("retried", ledger.assignment.tp, offset, attempt, 0.0)

    def exhausted(self, retry: ScheduledRetry, message: Message) -> None:
        """The last attempt timed out as well."""
        attempt = retry.attempt - 1
        reason = f"not settled within ack_timeout={self._session.config.ack_timeout} s, attempt {attempt}"
        self._bury(retry.parent, retry.index, message, reason, None, attempt)

    # From a queue

    def lease_lost(self, piece: Leased, index: int) -> None:
        """Call before it is noted. In somebody's hands, the message had an attempt that ran out."""
        child = piece.ledger.children.get(piece.offsets[index])
        slot = (piece, index) if child is None else (child, 0)
        attempt = slot[0].attempt_at(slot[1])
        spent = attempt >= self._session.config.retry.max_attempts
        if self._is_worth_remembering(spent) and slot[0][slot[1]] in OPEN and not self._session.buffer.has(*slot):
            piece.ledger.remember(piece, index, Tried(attempt, spent))

    def spent(self, piece: Piece, message: Message, attempt: int) -> None:
        """Delivered once more after its last attempt had run out: it is not handed out again."""
        timeout = self._session.config.ack_timeout
        limit = "its lease" if timeout is None else f"ack_timeout={timeout} s or its lease"
        piece.ledger.take(piece, 0)
        piece.ledger.attempts[piece.offsets[0]] = attempt
        reason = f"not settled before {limit} ran out, attempt {attempt}"
        self._bury(piece, 0, message, reason, None, attempt, stop=self.stop_there)

    def evicted(self, retry: ScheduledRetry) -> None:
        """The cache has let its body go. A queue cannot be read by offset, but it still has the message."""
        assert isinstance(retry.parent, Leased)
        self._give_back(retry.parent, retry.index, Return(), Tried(retry.attempt - 1, spent=False))

    def _give_back(self, piece: Leased, index: int, back: Return, tried: Tried) -> None:
        book = piece.ledger
        book.give_back(piece, index, back)
        if self._is_worth_remembering(tried.spent):
            book.remember(piece, index, tried)

        self._tell_soon()

    def _is_worth_remembering(self, spent: bool) -> bool:
        return spent or not self._session.capabilities.counts_attempts

    def _give_up(self, message: Message, reason: str, error: Exception | None) -> None:
        piece = piece_of(message)
        attempt = piece.attempt_at(message._index)
        parent, index = piece.ledger.take(piece, message._index)
        piece.ledger.attempts[parent.offsets[index]] = attempt
        self._bury(parent, index, message, reason, error, attempt)

    def _bury(
        self,
        parent: Piece,
        index: int,
        message: Message,
        reason: str,
        error: Exception | None,
        attempt: int,
        stop: Stop | None = None,
    ) -> None:
        if self._letters is None:
            stop = stop or partial(self.stop, cause=error)
            stop(parent.ledger, Stuck("retry", parent, index, message=message), reason, NO_ROUTE)
            return

        letter = self.letter_for(parent, index, message, reason, error, attempt)
        self._letters.add(Letter(letter, parent, index))

    # Letters that cannot be written, partitions that stop

    def undeliverable(self, letter: Letter, error: Exception) -> None:
        """The dead-letter route refused it for good."""
        fix = "Repair the dead-letter route and call consumer.resume_partitions(…) to write the letter again"
        stuck = Stuck("letter", letter.parent, letter.index, letter=letter)
        self.stop(letter.parent.ledger, stuck, f"its dead letter was refused: {text_of(error)}", fix, cause=error)

    def stop_there(self, ledger: Ledger, stuck: Stuck, reason: str, fix: str) -> None:
        """Stops when what was fetched before it is handed out, not when it is fetched."""
        reached = partial(self.stop, ledger, stuck, reason, fix)
        self._session.buffer.push(Obstacle(stuck.parent, reached))

    def stop(self, ledger: Ledger, stuck: Stuck, reason: str, fix: str, *, cause: BaseException | None = None) -> None:
        session = self._session
        lane = session.buffer.lanes.get(ledger)
        # Lost meanwhile: the message comes again, to whoever has the partition, or the lease, then.
        if lane is None or stuck.is_over:
            return

        self._stuck[ledger].append(stuck)
        tp = ledger.assignment.tp
        error = PartitionStopped(tp.topic, tp.partition, stuck.parent.offsets[stuck.index], reason=reason, fix=fix)
        error.__cause__ = cause
        log(logging.ERROR, "partition_stopped", "%s", error)
        session.observers("partition_stopped", error)
        if lane.stopped is None:
            lane.stopped = error
            session.buffer.hold(lane)

        # Whoever waits has to know if this was the last partition that could bring something.
        session.wake_receivers()

    def resume(self, lane: Lane) -> None:
        """Tries again what the partition stopped for."""
        lane.stopped = None
        for stuck in self._stuck.pop(lane.ledger, []):
            if stuck.is_over:
                continue

            if stuck.restart is not None:
                self.start_over(lane.ledger.assignment.tp, stuck.restart)
            elif stuck.kind == "accept":
                self._settle_slot(stuck.parent, stuck.index)
            elif stuck.letter is not None and self._letters is not None:
                self._letters.add(stuck.letter)
            elif stuck.message is not None:
                attempt = lane.ledger.attempts.get(stuck.parent.offsets[stuck.index], 0)
                self._redelivery.at_once(stuck.message, stuck.parent, stuck.index, attempt=attempt + 1)

    async def letters_written(self, ledgers: Collection[Ledger]) -> None:
        """Returns when no letter of these partitions is on its way, or the route is down."""
        if self._letters is not None:
            await self._letters.written_of(ledgers)

    def forget(self, ledger: Ledger) -> None:
        """The partition is somebody else's."""
        self._stuck.pop(ledger, None)
        if self._letters is not None:
            self._letters.forget_lost()

    def letter_for(
        self, parent: Piece, index: int, message: Message, reason: str, error: Exception | None, attempts: int
    ) -> DeadLetter:
        now = self._session.wall()
        offset = parent.offsets[index]
        group = self._session.config.group
        return DeadLetter(
            id=f"{parent.id_at(index, offset)}@{group or ''}",
            payload=message.payload,
            key=message.key,
            headers=message.headers,
            timestamp=message.timestamp,
            tp=parent.assignment.tp,
            offset=message.offset,
            group=group,
            reason=reason,
            exception_type=_type_name(error),
            exception_message=text_of(error) if error is not None else "",
            stack=_stack(error),
            attempts=attempts,
            first_failure=parent.ledger.first_failures.get(offset, now),
            last_failure=now,
        )


def _because(error: Exception | None, otherwise: str) -> str:
    return name_and_text(error) if error is not None else otherwise


def _type_name(error: Exception | None) -> str:
    return f"{type(error).__module__}.{type(error).__qualname__}" if error is not None else ""


def _stack(error: Exception | None) -> str:
    if error is None:
        return ""

    # The end of a traceback says what failed; the beginning is our own worker.
    return stack_of(error)[-STACK_BYTES:]
