"""What one assignment has in flight, and what of it is settled: the same for logs and for queues.

Rules of this file:

1. A *piece* is what one fetch brought of one partition: one state byte a message (see ``message.py`` for the states).
   ``ack()`` flips FREE to DONE without telling anybody. Everything else here is arranged so that this is enough.
2. *Somebody always notices the end.* While a piece has an unsettled slot, at least one unsettled slot is not FREE, so
   that settling it comes here: WATCH (at first the last slot), or TAKEN (a retry or dead letter is on its way, and
   settling that comes here). When a WATCH is settled and FREE slots are left, another slot becomes WATCH. In random
   order that happens about ln(n) times a piece.
3. *Counts are late, never wrong.* What is settled in an open piece is counted when somebody looks: at a WATCH, or when
   room is short. It is counted as unsettled until then.
4. *What is not in an open piece and below* ``scanned`` *is settled*, or never existed. So a wholly settled piece costs
   nothing: it is forgotten, even above the watermark, and an hour-long nack at full speed holds bytes, not gigabytes.
5. Retries hang below the slot they retry: a child piece of one slot, whose settling settles the parent's. The old
   handle finds TAKEN and cannot.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from typing import NamedTuple

from rustmq_sdk._core.piece import Child, Holder, Piece
from rustmq_sdk.message import DONE, FREE, STALE, TAKEN, WATCH
from rustmq_sdk.values import Assignment

_TO_STALE = bytes(DONE if state == DONE else STALE for state in range(256))
_FREE_TO_WATCH = bytes(WATCH if state == FREE else state for state in range(256))


class Settled(NamedTuple):
    """What settling changed, for the runtime to carry out: the ledger calls nobody."""

    messages: int
    """Messages of in-flight room freed."""
    bytes: int
    completed: bool
    """A whole piece is settled: the ack-handler should know."""


class Ledger(ABC):
    """One assignment's deliveries: a :class:`LogBook` or a :class:`LeaseBook`.

    Args:
        assignment: replaced when the partition comes back in the directly following generation.
        start: the offset, or on queues the running number, of the first message; what is below counts as settled.
    """

    def __init__(self, assignment: Assignment, start: int) -> None:
        self.assignment = assignment
        self.scanned = start
        """One past the last offset that was fetched."""
        self.fenced = False
        self.in_flight = 0
        self.in_flight_bytes = 0
        self.settled = 0
        self.announced = 0
        """Of them, those that observers were told of."""
        self.covered = 0
        """Of them, those that the broker knows of."""
        self.confirmed = 0
        """The ack-handler's last round that left nothing of it unwritten."""
        self.told = False
        """Already in the ack-handler's channel; tells it at most once."""
        self.open: OrderedDict[int, Piece] = OrderedDict()
        self.children: dict[int, Piece] = {}
        self.busy: dict[bytes | None, Holder] = {}
        """Order by key: the slot that was handed out last for a key. A settled slot holds nobody back."""
        self.attempts: dict[int, int] = {}
        self.first_failures: dict[int, int] = {}
        """Milliseconds since the epoch, of nacked, unsettled messages: for their dead letters."""
        self.due_attempts: dict[int, int] = {}
        """Attempts from before a restart whose messages were not delivered since."""

    def _take_in(self, piece: Piece) -> None:
        self.open[piece.offsets[0]] = piece
        self._keep_watch(piece)
        self.in_flight += len(piece) - piece.counted
        self.in_flight_bytes += piece.size

    # Settling

    def note(self, piece: Piece, index: int) -> Settled:
        """After slot ``index`` became DONE by the slow path: counts, frees, completes, keeps the watch."""
        if piece.parent is not None:
            piece, index = piece.parent, piece.parent_index
            piece[index] = DONE

        # The last slot of a batch may have been taken out of it: its retry lives on.
        if (self.children or self.attempts) and piece[index] == DONE:
            self.forget_attempts(piece.offsets[index])

        return self.recount(piece)

    def forget_attempts(self, offset: int) -> None:
        """The message is settled, or somebody else's: how often it was tried does not matter any more."""
        # A dead letter settles the first delivery's slot, and leaves the last retry's piece behind.
        self.children.pop(offset, None)
        self.attempts.pop(offset, None)
        self.first_failures.pop(offset, None)

    def recount(self, piece: Piece) -> Settled:
        """Counts what was settled in ``piece`` since somebody last looked."""
        settled, size = self.settled, self.in_flight_bytes
        unsettled = self._count(piece)
        return Settled(self.settled - settled, size - self.in_flight_bytes, not unsettled)

    def recount_all(self) -> Settled:
        """Counts all open pieces, because somebody is short of room or wants exact numbers."""
        settled, size = self.settled, self.in_flight_bytes
        for piece in list(self.open.values()):
            self._count(piece)

        return Settled(self.settled - settled, size - self.in_flight_bytes, completed=False)

    def _count(self, piece: Piece) -> int:
        """What is left unsettled."""
        done = piece.finished()
        fresh = done - piece.counted
        unsettled = len(piece) - done
        if fresh:
            piece.counted = done
            self.settled += fresh
            self.in_flight -= fresh
            left = unsettled * piece.largest
            if left < piece.size:
                self.in_flight_bytes -= piece.size - left
                piece.size = left

        if unsettled:
            self._keep_watch(piece)
        # Forgotten: rule 4. A piece that was fenced meanwhile is in no table any more.
        elif self.open.get(piece.offsets[0]) is piece:
            del self.open[piece.offsets[0]]

        return unsettled

    def _keep_watch(self, piece: Piece) -> None:
        if piece.find(WATCH) < 0:
            index = piece.rfind(FREE)
            if index >= 0:
                piece[index] = WATCH

    def watch_everything(self) -> None:
        """Room is so short that the very next ack must be noticed, whichever it is."""
        for piece in self.open.values():
            piece[:] = piece.translate(_FREE_TO_WATCH)

    def take(self, piece: Piece, index: int) -> tuple[Piece, int]:
        """The slot is on its way to a retry or a dead letter; the old handle can settle it no more.

        Answers the slot that a retry hangs below: the first delivery's.
        """
        piece[index] = TAKEN
        if piece.parent is not None:
            return piece.parent, piece.parent_index

        self._keep_watch(piece)
        return piece, index

    def retry(self, parent: Piece, index: int, attempt: int) -> Piece:
        """A piece of one slot for the next attempt of the message at ``parent[index]``."""
        child = self.children[parent.offsets[index]] = Child(parent, index, attempt)
        return child

    def fence(self) -> None:
        """The assignment is over: late settling answers STALE and moves nothing."""
        self.fenced = True
        for piece in (*self.open.values(), *self.children.values()):
            piece[:] = piece.translate(_TO_STALE)

        self.open.clear()
        self.children.clear()
        self.in_flight = 0
        self.in_flight_bytes = 0

    # How far it has come

    @property
    def watermark(self) -> int:
        """Every offset below it is settled; the next one to handle after a restart."""
        for piece in self.open.values():
            index = piece.first_unsettled()
            if index < len(piece):
                return piece.offsets[index]

        return self.scanned

    @property
    def span(self) -> int:
        """Offsets between the watermark and the newest fetched one, where intake is held back for it."""
        return 0

    @property
    def span_at_most(self) -> int:
        """The same from above, without looking into the first open piece."""
        return 0

    @property
    def uncommitted(self) -> int:
        """Settled messages (as far as counted) that the broker does not know of."""
        return self.settled - self.covered

    @property
    def settled_for_good(self) -> int:
        """Settled messages, as far as counted, that nobody has to handle again."""
        return self.settled

    @abstractmethod
    def is_written(self, offset: int) -> bool:
        """Whether the broker knows that ``offset`` is settled."""

    def was_too_late(self, offset: int) -> bool:
        """Whether what was settled there counts for nothing although the broker was told: queues only."""
        return False
