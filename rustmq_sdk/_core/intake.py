"""How much may be fetched now, and of which partitions.

Two bounds hold back the fetcher: undelivered messages (``prefetch``) and unsettled ones (``max_in_flight``, in messages
and bytes). Neither may let one partition starve the others, whatever it is: paused with a full buffer, hot, or held
back by order. So each partition has a floor in both, and what is left of the floors is kept free for it. With more
partitions than ``max_in_flight`` there is nothing to keep free: then whoever comes first is served, and one that is
paused or stuck can hold up the others.

``max_in_flight`` is never exceeded. Its bytes are by what a driver brings beyond what was asked for, a single message
as a rule: past the bound nothing more is asked for, however many partitions have nothing in flight. But one stuck
message that takes up the room of all must not starve them: beside it they still share an eighth of the bound. What can
starve them is a stuck partition whose messages are larger than that eighth, each.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from rustmq_sdk._core.lane import Lane

BYTE_FLOORS = 8
"""An eighth of the byte bound is shared out as floors: a floor only has to keep a partition moving."""

SURE = 10
"""Fetches without another look at what is uncommitted, at most."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The configured bounds (``ConsumerConfig`` says what each means)."""

    prefetch: int
    max_in_flight: int
    max_in_flight_bytes: int
    max_uncommitted: int
    max_span: int


class Demand(NamedTuple):
    """What to ask the driver for."""

    lanes: Collection[Lane]
    max_messages: int
    max_bytes: int
    partial: bool = False
    """Only what each of these has kept free: more may be wanted as soon as there is room."""


class Intake:
    """Decides what to fetch. Holds no counts of its own: the lanes have them."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.low = max(1, min(limits.prefetch, limits.max_in_flight) // 2 - 1)
        """With no more messages to hand out than this it is time to fetch.

        A full piece costs as much as a tiny one, so the fetcher waits until more than half of what may wait is used
        up: the half itself is one batch of the default size, whose receiver is served without asking.
        """
        self._turn = 0
        self._sure_for = 0

    def demand(self, lanes: Collection[Lane], backlog: int, withheld: int) -> Demand | None:
        """What to fetch now; None if there is enough to hand out, no room, or no partition to fetch from.

        Args:
            lanes: of all assigned partitions.
            backlog: their undelivered messages.
            withheld: those of them that may not be handed out now (paused, stopped, being revoked).
        """
        to_hand_out = backlog - withheld
        if to_hand_out > self.low:
            return None

        eligible, in_flight, in_flight_bytes = self._survey(lanes)
        if not eligible:
            return None

        room, room_bytes = self._room(lanes, in_flight, in_flight_bytes)
        shared = min(self.limits.prefetch - backlog, room)
        if shared >= (self.low if to_hand_out else 1) and room_bytes > 0:
            return Demand(eligible, shared, room_bytes)

        return self._floor_demand(eligible, lanes, in_flight, in_flight_bytes)

    def _survey(self, lanes: Collection[Lane]) -> tuple[list[Lane], int, int]:
        """The partitions that want messages; messages and bytes that are in flight in all of them.

        With 1,000 partitions a look at each takes as long as 100 messages: so it is one look, and most have nothing
        open and nothing that holds them back (``Lane.deliverable``).
        """
        eligible: list[Lane] = []
        in_flight = in_flight_bytes = 0
        for lane in lanes:
            ledger = lane.ledger
            if ledger.open:
                in_flight += ledger.in_flight
                in_flight_bytes += ledger.in_flight_bytes
            elif not (lane.pressed_at is not None or lane.paused or lane.draining or lane.stopped):
                eligible.append(lane)
                continue

            if self.admits(lane):
                eligible.append(lane)

        return eligible, in_flight, in_flight_bytes

    def admits(self, lane: Lane) -> bool:
        """Whether the partition itself wants messages: delivered, and not too far ahead of its watermark."""
        if not lane.deliverable or lane.pressed:
            return False

        ledger = lane.ledger
        most = self.limits.max_span
        return ledger.span_at_most < most or ledger.span < most

    def _floor_demand(
        self, eligible: list[Lane], lanes: Collection[Lane], in_flight: int, in_flight_bytes: int
    ) -> Demand | None:
        """The shared room is used up: a partition below its floor still gets what it has kept free."""
        limits = self.limits
        floor = self._floor(len(lanes))
        # Less than all floors together only where partitions were added and the others have used up everything.
        free = limits.max_in_flight - in_flight
        byte_floors = limits.max_in_flight_bytes // BYTE_FLOORS
        free_bytes = limits.max_in_flight_bytes - in_flight_bytes
        if free_bytes <= 0 and (largest := _largest(lanes)) >= limits.max_in_flight_bytes:
            free_bytes = byte_floors - (in_flight_bytes - largest)

        byte_floor = max(1, byte_floors // len(lanes))
        asked: list[tuple[Lane, int, int]] = []
        for lane in eligible:
            room = min(floor - lane.ledger.in_flight, free)
            room_bytes = min(byte_floor - lane.ledger.in_flight_bytes, free_bytes)
            if room > 0 and room_bytes > 0:
                asked.append((lane, room, room_bytes))

        if not asked:
            return None

        # All are asked together, since a fetch waits where there is nothing; and any of them may answer with all that
        # is asked for. So that one with little room left does not make tiny pieces of everybody's, it is left out of
        # every second demand.
        self._turn += 1
        if self._turn % 2:
            most = max(room for _, room, _ in asked)
            asked = [one for one in asked if 2 * one[1] >= most]

        room, room_bytes = min(room for _, room, _ in asked), min(size for _, _, size in asked)
        return Demand([lane for lane, _, _ in asked], room, room_bytes, partial=True)

    def _floor(self, assigned: int) -> int:
        """Messages that each partition can always have in flight, whether they are handed out or wait."""
        # One where the share is less: else a paused partition with a full, small buffer would starve all others.
        return min(self.limits.prefetch, self.limits.max_in_flight) // assigned or int(
            assigned <= self.limits.max_in_flight
        )

    def _room(self, lanes: Collection[Lane], in_flight: int, in_flight_bytes: int) -> tuple[int, int]:
        """Messages and bytes that may still come in, what is kept free for single partitions apart."""
        limits = self.limits
        free, free_bytes = limits.max_in_flight - in_flight, limits.max_in_flight_bytes - in_flight_bytes
        floor = self._floor(len(lanes))
        if free - floor * len(lanes) < limits.prefetch:
            free -= sum(max(0, floor - lane.ledger.in_flight) for lane in lanes)

        floor = limits.max_in_flight_bytes // BYTE_FLOORS // len(lanes)
        if free_bytes > limits.max_in_flight_bytes // 2:
            free_bytes -= floor * len(lanes)
        else:
            free_bytes -= sum(max(0, floor - lane.ledger.in_flight_bytes) for lane in lanes)

        return free, free_bytes

    def short_of_room(self, lanes: Collection[Lane]) -> bool:
        """Whether it is unsettled messages that hold intake back, so that counting them again may help."""
        if not lanes:
            return False

        _, in_flight, in_flight_bytes = self._survey(lanes)
        room, room_bytes = self._room(lanes, in_flight, in_flight_bytes)
        return room < self.low or room_bytes <= 0

    def too_much_uncommitted(self, lanes: Collection[Lane]) -> bool:
        """Settled messages that no commit covers have reached their bound: nothing more is fetched.

        Asked once before a fetch; looks only as often as the bound may be near.
        """
        self._sure_for -= 1
        if self._sure_for >= 0:
            return False

        limits = self.limits
        found = uncommitted(lanes)
        # What can be settled until then is in flight now or fetched first. Not for long, since a commit that has room
        # for less than the one before leaves more of them.
        left = limits.max_uncommitted - found - limits.max_in_flight
        self._sure_for = min(max(0, left) // limits.prefetch, SURE)
        return found >= limits.max_uncommitted


def _largest(lanes: Collection[Lane]) -> int:
    """Bytes of the largest message in flight."""
    pieces = (piece for lane in lanes for piece in lane.ledger.open.values())
    return max((min(piece.size, piece.largest) for piece in pieces), default=0)


def uncommitted(lanes: Collection[Lane]) -> int:
    """Settled messages, as far as counted, that no written checkpoint covers, of all partitions."""
    # A list and no generator, the difference and no property: with 1,000 partitions a fetch and a commit wait for this.
    return sum([lane.ledger.settled - lane.ledger.covered for lane in lanes])
