"""Looking for messages that nobody settles: reported when they stall, taken back where that is asked for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator
from itertools import chain
from typing import NamedTuple, TypeAlias

from rustmq_sdk._core.lane import Lane
from rustmq_sdk._core.piece import Piece
from rustmq_sdk._log import log
from rustmq_sdk._runtime.session import Session
from rustmq_sdk.message import FREE, WATCH

LOOKS = 4
"""Looks within the shortest period that matters: a message is noticed at most a quarter of it late."""

SETTLE_IT = "Call its ack(), nack() or reject(); under run() its handler has not returned"
"""What to do about a message that stalls: nothing in a log says which of the two it is."""

Slot: TypeAlias = tuple[Piece, int]


class Holder(NamedTuple):
    """A slot in the user's hands that holds its partition's watermark, and since when (loop time)."""

    slot: Slot
    since: float

    @property
    def offset(self) -> int:
        """Where its message is in the partition."""
        piece, index = self.slot
        return piece.offsets[index]


class Watch:
    """Looks through what is in flight a few times per ``stall_after`` and ``ack_timeout``.

    Without ``ack_timeout`` no clock is read when a message is handed out. So a stall is found by looking: the same
    handed-out slot has held its partition's watermark at each look for ``stall_after`` seconds.

    Args:
        take_back: gets a slot that was handed out longer than ``ack_timeout`` ago.
    """

    def __init__(self, session: Session, *, take_back: Callable[[Piece, int], None]) -> None:
        config = session.config
        self._session = session
        self._take_back = take_back
        self._period = min(config.stall_after, config.ack_timeout or config.stall_after) / LOOKS
        self._next = 0.0
        self._holders: dict[Lane, Holder] = {}
        """What held each partition's watermark at the last look."""
        self.stalled: dict[Lane, Holder] = {}
        """Those of them that are to be called stalled."""

    def __call__(self, now: float) -> float | None:
        """Looks, if it is time to; seconds until the next look, None while nothing is in flight."""
        lanes = list(self._session.lanes)
        if not any(lane.ledger.in_flight for lane in lanes):
            self._holders = {}
            self.stalled = {}
            return None

        if now >= self._next:
            self._next = now + self._period
            self._look_for_stalls(lanes, now)
            if self._session.config.ack_timeout is not None:
                self._take_back_late(now - self._session.config.ack_timeout)

        return self._next - now

    def _look_for_stalls(self, lanes: Collection[Lane], now: float) -> None:
        # Both are made anew, so that nothing is kept of what was settled or of partitions that are over.
        before, self._holders = self._holders, {}
        reported, self.stalled = self.stalled, {}
        for lane in lanes:
            self._session.recount(lane.ledger)
            slot = self._holding_slot(lane)
            if slot is None:
                continue

            known = before.get(lane)
            holder = known if known is not None and known.slot == slot else Holder(slot, now)
            self._holders[lane] = holder
            if now - holder.since >= self._session.config.stall_after:
                self.stalled[lane] = holder
                if reported.get(lane) is not holder:
                    self._report(lane, holder, now - holder.since)

    def _report(self, lane: Lane, holder: Holder, age: float) -> None:
        piece, index = holder.slot
        text = "%s is unsettled for %.0f s and holds the watermark. %s%s"
        log(logging.WARNING, "stalled", text, piece.place_at(index), age, SETTLE_IT, self._standstill())
        self._session.observers("stalled", lane.ledger.assignment.tp, holder.offset, age)

    def _standstill(self) -> str:
        in_flight = sum(lane.ledger.in_flight for lane in self._session.lanes)
        most = self._session.config.max_in_flight
        return (
            f". Nothing more is fetched: {in_flight} are unsettled (max_in_flight={most})" if in_flight >= most else ""
        )

    def _holding_slot(self, lane: Lane) -> Slot | None:
        """The first unsettled slot of the partition, if it is in the user's hands."""
        for piece in lane.ledger.open.values():
            index = piece.first_unsettled()
            child = lane.ledger.children.get(piece.offsets[index]) if index < len(piece) else None
            slot = (piece, index) if child is None else (child, 0)
            in_hand = slot[0][slot[1]] in (FREE, WATCH)
            # Still in the buffer: then it is the user who does not ask, not a message that stalls.
            return slot if in_hand and not self._session.buffer.has(*slot) else None

        return None

    def _take_back_late(self, before: float) -> None:
        for lane in list(self._session.lanes):
            for piece, index in list(_late(lane, before)):
                self._take_back(piece, index)


def _late(lane: Lane, before: float) -> Iterator[Slot]:
    for piece in chain(lane.ledger.open.values(), lane.ledger.children.values()):
        for index, since in (piece.times or {}).items():
            if since <= before and piece[index] in (FREE, WATCH):
                yield piece, index
