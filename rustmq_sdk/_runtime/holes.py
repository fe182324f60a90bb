"""What of a log cannot be delivered: records that cannot be decoded, ranges that are gone, a log that has begun anew.

None is passed silently. Each becomes a dead letter, or stops its partition at its turn and waits for somebody.
"""

from __future__ import annotations

import logging

from rustmq_sdk._core.lane import Lane
from rustmq_sdk._core.leases import LeaseBook
from rustmq_sdk._core.piece import Piece
from rustmq_sdk._error_text import text_of
from rustmq_sdk._log import log
from rustmq_sdk._runtime.dead_letters import DeadLetterWriter, Letter
from rustmq_sdk._runtime.failures import Failures, Stop, Stuck
from rustmq_sdk._runtime.redelivery import ScheduledRetry
from rustmq_sdk._runtime.session import Session
from rustmq_sdk.message import Message, Settler
from rustmq_sdk.values import Broken, Gone

NO_ROUTE = (
    "Give the consumer dead_letter_topic=… or dead_letters=… and restart it: then its bytes are kept in a letter. "
    "consumer.resume_partitions(…) gives the record up and goes on after it"
)


class Holes:
    """Routes them. Wired to its neighbours by ``connect``: they know each other."""

    def __init__(self, session: Session, failures: Failures) -> None:
        self._session = session
        self._failures = failures
        self._letters: DeadLetterWriter | None
        self._settler: Settler

    def connect(self, *, letters: DeadLetterWriter | None, settler: Settler) -> None:
        """``letters`` is None where there is no route."""
        self._letters = letters
        self._settler = settler

    def broken(self, lane: Lane, broken: Broken) -> None:
        """A record that could not be decoded: dead-lettered with its raw bytes, or its partition stops there."""
        piece = self._hold_watermark(lane, broken.offset)
        if piece is not None:
            self._route_broken(piece, 0, broken, self._failures.stop_there)

    def broken_retry(self, retry: ScheduledRetry, broken: Broken) -> None:
        """The same, found when the body was read again."""
        self._route_broken(retry.parent, retry.index, broken, self._failures.stop)

    def gone(self, lane: Lane, gone: Gone) -> None:
        """The log has lost messages before they were delivered."""
        if isinstance(lane.ledger, LeaseBook):
            # Never leased, so there is no slot to hold back and nothing that could still be handled.
            self._report(gone)
            return

        if gone.restart is not None:
            self._begun_anew(lane, gone, gone.restart)
            return

        first = max(gone.first, lane.ledger.scanned)
        piece = self._hold_watermark(lane, first) if first < gone.end else None
        if piece is not None:
            # The rest of the range needs no slots: one that is not settled holds the watermark. It is passed over with
            # what comes after it.
            self._route_gone(piece, 0, gone._replace(first=first), self._failures.stop_there)

    def gone_retry(self, retry: ScheduledRetry, gone: Gone) -> None:
        """The log has lost a message that waited for its next attempt, and the cache had let it go."""
        offset = retry.offset
        self._route_gone(retry.parent, retry.index, gone._replace(first=offset, end=offset + 1), self._failures.stop)

    def _begun_anew(self, lane: Lane, gone: Gone, restart: int) -> None:
        """What the old log still had is not known to anybody, so there is nothing to write letters about."""
        reason = self._report(gone)
        ledger = lane.ledger
        if self._session.config.on_lost == "dead_letter":
            self._failures.start_over(ledger.assignment.tp, restart)
            return

        # A slot at the position, so that nothing is said to be settled that nobody has seen.
        piece = self._hold_watermark(lane, ledger.scanned)
        assert piece is not None
        fix = (
            f"consumer.resume_partitions(…) goes on at offset {restart}, where the log begins now; "
            "on_lost='dead_letter' does so without stopping"
        )
        self._failures.stop_there(ledger, Stuck("restart", piece, 0, restart=restart), reason, fix)

    def _hold_watermark(self, lane: Lane, offset: int) -> Piece | None:
        ledger = lane.log
        piece, _ = ledger.admit((offset,), offset + 1, size=0, largest=0, owner=self._settler)
        if piece is not None:
            ledger.take(piece, 0)

        return piece

    def _route_broken(self, parent: Piece, index: int, broken: Broken, stop: Stop) -> None:
        reason = f"could not be decoded: {text_of(broken.error)}"
        if self._letters is None:
            stop(parent.ledger, Stuck("accept", parent, index), reason, NO_ROUTE)
            return

        body = Message(broken.raw, None, (), broken.offset, self._session.wall(), parent, index)
        attempts = parent.ledger.attempts.get(broken.offset, 0)
        letter = self._failures.letter_for(parent, index, body, reason, broken.error, attempts)
        self._letters.add(Letter(letter, parent, index))

    def _route_gone(self, parent: Piece, index: int, gone: Gone, stop: Stop) -> None:
        session = self._session
        reason = self._report(gone)
        if session.config.on_lost == "dead_letter" and self._letters is not None:
            body = Message(None, None, (), gone.first, session.wall(), parent, index)
            attempts = parent.ledger.attempts.get(gone.first, 0)
            letter = self._failures.letter_for(parent, index, body, reason, None, attempts)
            self._letters.add(Letter(letter, parent, index))
            return

        fix = (
            "consumer.resume_partitions(…) accepts the loss and goes on after it; on_lost='dead_letter' writes a "
            "letter instead of stopping"
        )
        stop(parent.ledger, Stuck("accept", parent, index), reason, fix)

    def _report(self, gone: Gone) -> str:
        session = self._session
        session.counts.lost += gone.end - gone.first
        session.observers("lost", gone)
        range_ = f"offsets {gone.first} to {gone.end - 1} are gone: " if gone.first < gone.end else ""
        reason = f"{range_}{gone.reason}"
        log(logging.ERROR, "lost", "%s: %s", gone.tp, reason)
        return reason
