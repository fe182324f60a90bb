"""A queue's deliveries: every message is leased and settled by itself, so there is no watermark, but settlements.

The slots work as a log's do (``ledger.py``). What differs is what the broker is told: for each slot that is settled an
Ack, or the verb that was noted for it. A piece is kept until the broker has confirmed all its slots.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rustmq_sdk._core.ledger import Ledger, Settled
from rustmq_sdk._core.piece import Piece
from rustmq_sdk.message import DONE, STALE, Settler
from rustmq_sdk.values import Assignment, Receipt

TOO_LATE = 1000
"""Acks that came after their lease had run out, remembered for those who wait to hear of a durable one."""
TRIED = 10_000
"""Messages that went back, whose attempts are remembered because the broker's next delivery does not tell them."""


class Leased(Piece):
    """A piece of leased messages."""

    __slots__ = ("attempts", "receipts", "reported", "returns")

    ledger: LeaseBook

    def __init__(
        self,
        book: LeaseBook,
        numbers: range,
        receipts: Sequence[Receipt],
        attempts: Sequence[int],
        *,
        size: int,
        largest: int,
        owner: Settler,
    ) -> None:
        super().__init__(book, numbers, size=size, largest=largest, owner=owner)
        self.receipts = list(receipts)
        self.attempts = attempts
        self.reported = bytearray(len(numbers))
        """1 for each slot whose settlement the broker has confirmed, or whose lease it has called lost."""
        self.returns: dict[int, Return] = {}
        """Slots that go back to the broker, or were dead-lettered, instead of being acked."""

    def attempt_at(self, index: int) -> int:
        """As the broker counts."""
        return self.attempts[index] if self.attempts else self.attempt

    def id_at(self, index: int, offset: int | None) -> str:
        """The broker's name for the message."""
        return self.receipts[index].id

    def place_at(self, index: int) -> str:
        """The topic, and the broker's name for the message."""
        return self.assignment.tp.at(self.receipts[index].id)

    def finished(self) -> int:
        """Slots that nobody has to do anything about; a slot whose lease was lost is somebody else's."""
        return self.count(DONE) + self.count(STALE)

    def unreported(self) -> Iterator[int]:
        """Slots that the broker has not confirmed, in order."""
        index = self.reported.find(0)
        while index >= 0:
            yield index
            index = self.reported.find(0, index + 1)


class Return(NamedTuple):
    """How a slot goes back: after ``delay``, counted as an attempt or not; ``dead`` if a dead letter took its place."""

    delay: float = 0.0
    counted: bool = True
    dead: bool = False


class Due(NamedTuple):
    """One settlement that the broker has to be told. ``verb`` None is an ack."""

    piece: Leased
    slot: int
    verb: Return | None


class Tried(NamedTuple):
    """What is known here of a message that went back to the broker."""

    attempts: int
    spent: bool
    """The last one that the policy allows has run out: there will be no further attempt."""


class LeaseBook(Ledger):
    """One queue's deliveries; ``offsets`` of its pieces are running numbers, unknown to the user."""

    def __init__(self, assignment: Assignment) -> None:
        super().__init__(assignment, 0)
        self.unreported: dict[int, Leased] = {}
        self.returned = 0
        """Slots that count as settled although nobody acked them: given back, or their lease was lost."""
        self._returning = 0
        self._too_late: deque[int] = deque(maxlen=TOO_LATE)
        self._tried: OrderedDict[str, Tried] = OrderedDict()

    def lease(
        self, receipts: Sequence[Receipt], attempts: Sequence[int], *, size: int, largest: int, owner: Settler
    ) -> Leased | None:
        """Takes in what a fetch brought; None for nothing."""
        if not receipts:
            return None

        if self._tried and not attempts:
            attempts = [self._tried.get(receipt.id, _UNTRIED).attempts + 1 for receipt in receipts]

        numbers = range(self.scanned, self.scanned + len(receipts))
        piece = Leased(self, numbers, receipts, attempts, size=size, largest=largest, owner=owner)
        self.scanned = numbers.stop
        self.unreported[numbers.start] = piece
        self._take_in(piece)
        return piece

    def give_back(self, piece: Piece, index: int, back: Return) -> None:
        """The slot goes back to the broker with the next settlements; its handle is void."""
        assert isinstance(piece, Leased)
        before = piece.returns.get(index)
        piece.returns[index] = back
        self._returning += (not back.dead) - (before is not None and not before.dead)

    def remember(self, piece: Leased, index: int, tried: Tried) -> None:
        """Notes of a message that goes back, or was lost, what the broker cannot tell when it comes again."""
        name = piece.receipts[index].id
        self._tried[name] = tried
        self._tried.move_to_end(name)
        if len(self._tried) > TRIED:
            self._tried.popitem(last=False)

    def spent(self, receipts: Sequence[Receipt]) -> dict[int, int]:
        """Of a fetch, the messages that there is no further attempt for: their places, and the attempts they had."""
        if not self._tried:
            return {}

        known = [self._tried.get(receipt.id, _UNTRIED) for receipt in receipts]
        return {index: tried.attempts for index, tried in enumerate(known) if tried.spent}

    @property
    def uncommitted(self) -> int:
        """Settlements, as far as counted, that the broker has not confirmed."""
        return self.settled - self.covered + self._returning

    @property
    def settled_for_good(self) -> int:
        """Not those that were given back, or whose lease was lost."""
        return self.settled - self.returned

    def due(self) -> Iterator[Due]:
        """What the broker has to be told."""
        for piece in () if self.fenced else self.unreported.values():
            for index in piece.unreported():
                back = piece.returns.get(index)
                if piece[index] == DONE or back is not None:
                    yield Due(piece, index, back)

    def report(self, due: Due, *, lost: bool) -> Settled:
        """The broker has confirmed a settlement, or says that the lease had run out before it came."""
        piece, index, back = due
        # Lost by a renewal that came in between.
        if piece.reported[index]:
            return Settled(0, 0, completed=False)

        if self.fenced:
            # While the broker was being told. It counts for nothing here, but somebody may wait to hear of it.
            piece.reported[index] = 1
            if lost:
                self._too_late.append(piece.offsets[index])

            return Settled(0, 0, completed=False)

        if back is not None and not back.dead:
            self._returning -= 1
            self.returned += 1
            piece[index] = DONE if back.counted else STALE
        elif lost:
            self.returned += 1
            piece[index] = STALE
            self._too_late.append(piece.offsets[index])
        else:
            self._tried.pop(piece.receipts[index].id, None)

        return self._report(piece, index)

    def lose(self, piece: Leased, index: int) -> Settled:
        """The lease ran out while the message was unsettled: its handle is stale."""
        piece[index] = STALE
        self.returned += 1
        child = self.children.get(piece.offsets[index])
        if child is not None:
            child[0] = STALE

        back = piece.returns.pop(index, None)
        if back is not None and not back.dead:
            # Given back while the renewal was on its way: nobody will be told of it any more.
            self._returning -= 1

        return self._report(piece, index)

    def _report(self, piece: Leased, index: int) -> Settled:
        piece.reported[index] = 1
        self.covered += 1
        self.forget_attempts(piece.offsets[index])
        counted = self.recount(piece)
        if piece.reported.find(0) < 0:
            self.unreported.pop(piece.offsets[0], None)

        return counted

    def leased(self) -> Iterator[tuple[Leased, int]]:
        """Slots whose lease must be kept alive: all that are not settled, the buffered ones included."""
        for piece in self.unreported.values():
            for index in piece.unreported():
                if piece[index] != DONE and index not in piece.returns:
                    yield piece, index

    def acked(self) -> Iterator[tuple[Leased, int]]:
        """Slots that are acked and the broker does not know it yet: without a lease the message would come again."""
        for piece in self.unreported.values():
            for index in piece.unreported():
                if piece[index] == DONE and index not in piece.returns:
                    yield piece, index

    def is_written(self, offset: int) -> bool:
        """Whether the broker has confirmed the settlement."""
        found = self._find(offset)
        return found is None or bool(found[0].reported[found[1]])

    def was_too_late(self, offset: int) -> bool:
        """Whether the lease was lost before the settlement arrived."""
        return offset in self._too_late

    def _find(self, offset: int) -> tuple[Leased, int] | None:
        for first, piece in self.unreported.items():
            if first <= offset < first + len(piece):
                return piece, offset - first

        return None


_UNTRIED = Tried(0, spent=False)
