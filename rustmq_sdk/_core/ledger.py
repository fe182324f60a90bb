"""What one assignment has in flight, what of it is settled, and how far the watermark has come.

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

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

from rustmq_sdk._core.checkpoint import Remembered
from rustmq_sdk._core.on_broker import OnBroker
from rustmq_sdk._core.piece import Child, Holder, Piece
from rustmq_sdk._core.settled_runs import Runs
from rustmq_sdk._core.spill import Fitted, fit
from rustmq_sdk.message import DONE, FREE, STALE, TAKEN, WATCH, Settler
from rustmq_sdk.values import Assignment, Checkpoint

_TO_STALE = bytes(DONE if state == DONE else STALE for state in range(256))
_FREE_TO_WATCH = bytes(WATCH if state == FREE else state for state in range(256))


class Settled(NamedTuple):
    """What settling changed, for the runtime to carry out: the ledger calls nobody."""

    messages: int
    """Messages of in-flight room freed."""
    bytes: int
    completed: bool
    """A whole piece is settled: the ack-handler should know."""


class Snapshot(NamedTuple):
    """A checkpoint about to be written, and what it will have covered once it is."""

    checkpoint: Checkpoint
    runs: Runs
    """What is settled above the watermark and fits into the checkpoint."""
    settled: int
    """The count of settled messages it covers, on the scale of ``Ledger.settled``."""
    pressed: bool
    """More than three quarters of the checkpoint's room are used: intake should slow down."""
    spill: bytes = b""
    """What did not fit: to be stored before the checkpoint is committed. Empty if it has everything."""


class Ledger:
    """One assignment's deliveries.

    Args:
        assignment: replaced when the partition comes back in the directly following generation.
        start: the first offset to fetch; everything below counts as settled.
        remembered: settled above ``start`` and attempts, from the last committed checkpoint.
    """

    def __init__(self, assignment: Assignment, start: int, remembered: Remembered | None = None) -> None:
        self.assignment = assignment
        self.scanned = start
        self.admitted = 0
        self.fenced = False
        self.in_flight = 0
        self.in_flight_bytes = 0
        self.settled = 0
        self.announced = 0
        """Of them, those that observers were told of."""
        self.covered = 0
        self.confirmed = 0
        """The ack-handler's last round that left nothing of it unwritten."""
        self.told = False
        """Already in the ack-handler's channel; tells it at most once."""
        self.must_write = False
        """A seek: the next commit is written even if it lowers the position."""
        self.open: OrderedDict[int, Piece] = OrderedDict()
        self.children: dict[int, Piece] = {}
        self.busy: dict[bytes | None, Holder] = {}
        """Order by key: the slot that was handed out last for a key. A settled slot holds nobody back."""
        self.attempts: dict[int, int] = dict(remembered.attempts) if remembered else {}
        self.first_failures: dict[int, int] = {}
        """Milliseconds since the epoch, of nacked, unsettled messages: for their dead letters."""
        self.due_attempts: dict[int, int] = dict(self.attempts)
        """Attempts from before a restart whose messages were not delivered since."""
        self.skip: Runs = list(remembered.settled) if remembered else []
        self.on_broker = OnBroker(Checkpoint(start))
        self.written_runs: Runs = list(self.skip)

    # Intake

    def admit(
        self, offsets: Sequence[int], next_offset: int, *, size: int, largest: int, owner: Settler
    ) -> tuple[Piece | None, int]:
        """Takes in what a fetch brought; answers the piece (None if nothing is new) and how many records to cut off.

        A driver that was rewound to the committed offset brings again what is known here, in flight or settled. That
        prefix is cut off; marking it settled instead would claim what still runs.
        """
        if next_offset <= self.scanned:
            return None, len(offsets)

        cut = bisect_left(offsets, self.scanned) if offsets and offsets[0] < self.scanned else 0
        kept = offsets[cut:] if cut else offsets
        if not kept:
            self.pass_over(next_offset)
            return None, cut

        if cut:
            # What was cut off may be the small ones.
            size = min(size, len(kept) * (largest or size))

        piece = Piece(self, kept, size=size, largest=largest, owner=owner)
        self.admitted += len(piece)
        self._mark_remembered(piece)
        self.pass_over(next_offset)
        if piece.counted == len(piece):
            return None, len(offsets)

        self.open[kept[0]] = piece
        self._keep_watch(piece)
        self.in_flight += len(piece) - piece.counted
        self.in_flight_bytes += piece.size
        return piece, cut

    def pass_over(self, next_offset: int) -> None:
        """Everything below ``next_offset`` was scanned: what is in no piece is settled, or does not exist."""
        self.scanned = max(self.scanned, next_offset)
        while self.skip and self.skip[0][0] <= self.scanned:
            # A remembered run that is reached is behind us as a whole. Else the watermark could stand at its first
            # offset, and nothing can be said there: the run would be forgotten.
            self.scanned = max(self.scanned, self.skip.pop(0)[1])

    def _mark_remembered(self, piece: Piece) -> None:
        offsets = piece.offsets
        for first, end in self.skip:
            if first > offsets[-1]:
                break

            low, high = bisect_left(offsets, first), bisect_left(offsets, end)
            piece[low:high] = bytes([DONE]) * (high - low)
            piece.counted = piece.count(DONE)

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

    # Position

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
        """Offsets between the watermark and the newest fetched one."""
        return self.scanned - self.watermark

    @property
    def span_at_most(self) -> int:
        """The same from above, without looking into the first open piece."""
        return self.scanned - next(iter(self.open), self.scanned)

    @property
    def uncommitted(self) -> int:
        """Settled messages (as far as counted) that the last written checkpoint does not cover."""
        return self.settled - self.covered

    @property
    def settled_for_good(self) -> int:
        """Settled messages, as far as counted, that nobody has to handle again."""
        return self.settled

    def lag(self, end: int) -> int:
        """Messages below ``end`` that are not settled; an upper bound where offsets have gaps."""
        above = sum(min(last, end) - first for first, last in self.settled_above() if first < end)
        return max(0, end - self.watermark - above)

    def settled_above(self) -> Runs:
        """What is settled above the watermark, gaps that never held a message included."""
        # Each run ends where an unsettled one begins; neighbouring pieces may leave nothing in between.
        edges = list(chain.from_iterable(piece.unsettled_edges() for piece in self.open.values()))
        ends = [*edges[2::2], self.scanned]
        runs = [(first, end) for first, end in zip(edges[1::2], ends, strict=True) if first < end] if edges else []
        for first, end in self.skip:
            if runs and runs[-1][1] == first:
                runs[-1] = (runs[-1][0], end)
            else:
                runs.append((first, end))

        return runs

    @property
    def written(self) -> Checkpoint:
        """The last written checkpoint."""
        return self.on_broker.checkpoint

    @property
    def all_written(self) -> bool:
        """The last written checkpoint says all there is to say: nothing is open, and nothing was settled since."""
        # With the position there, nothing is open, and nothing was settled that it does not cover.
        unsaid = self.skip or self.attempts or self.must_write or self.written.extra
        return self.scanned == self.written.offset and not unsaid

    def snapshot(self, room: int | None, *, spills: bool = False) -> Snapshot | None:
        """The checkpoint to write now; None if the last one written says the same.

        ``spills``: what does not fit into the room goes somewhere else.
        """
        self.recount_all()
        watermark = self.watermark
        self._forget_attempts_below(watermark)
        runs = self.settled_above()
        extra, covered, spill, full = Fitted(b"", self.scanned, b"", full=False)
        if runs or self.attempts:
            extra, covered, spill, full = fit(watermark, runs, self.attempts, room, spills=spills)

        fitting, left_out = runs, 0
        if runs and covered < runs[-1][1]:
            fitting = [(first, min(end, covered)) for first, end in runs if first < covered]
            left_out = sum(end - first for first, end in runs) - sum(end - first for first, end in fitting)
            left_out = min(left_out, self._settled_from(covered))

        checkpoint = Checkpoint(watermark, extra)
        snapshot = Snapshot(checkpoint, fitting, self.settled - left_out, full, spill)
        if checkpoint == self.written and not self.must_write:
            # Not by ``wrote``: where we began counts as written, and the broker may have nothing yet.
            self._covers(snapshot)
            return None

        return snapshot

    def _forget_attempts_below(self, watermark: int) -> None:
        """Of messages that a restart remembered and that compaction has taken since: nobody will settle them."""
        for known in (self.attempts, self.first_failures, self.due_attempts):
            for offset in [offset for offset in known if offset < watermark]:
                del known[offset]

    def _settled_from(self, offset: int) -> int:
        """Messages settled at ``offset`` and above, or more: offsets alone would count the gaps of compacted logs."""
        unsettled = 0
        for piece in reversed(self.open.values()):
            index = bisect_left(piece.offsets, offset)
            unsettled += len(piece) - index - piece.count(DONE, index)
            if index:
                return self.admitted - piece.number - index - unsettled

        return self.admitted - unsettled

    def wrote(self, snapshot: Snapshot) -> None:
        """The broker has it."""
        self.on_broker.checkpoint = snapshot.checkpoint
        self.on_broker.stored = True
        self.on_broker.sent.clear()
        self.must_write = False
        self._covers(snapshot)

    def _covers(self, snapshot: Snapshot) -> None:
        self.written_runs = snapshot.runs
        # Lower than before if less fits now: what was cut off is uncommitted again.
        self.covered = snapshot.settled

    def was_too_late(self, offset: int) -> bool:
        """Whether what was settled there counts for nothing although the broker was told: queues only."""
        return False

    def is_written(self, offset: int) -> bool:
        """Whether the last written checkpoint says that ``offset`` is settled."""
        if self.must_write:
            return False

        if offset < self.written.offset:
            return True

        index = bisect_left(self.written_runs, (offset + 1, 0)) - 1
        return index >= 0 and self.written_runs[index][0] <= offset < self.written_runs[index][1]
