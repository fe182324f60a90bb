"""A log's deliveries: how far the watermark has come, and the checkpoint that says so.

The slots work as ``ledger.py`` says. What is not in an open piece and below ``scanned`` is settled, or never existed.
So the watermark is the first unsettled slot, and what is settled above it needs no bookkeeping of its own.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

from rustmq_sdk._core.checkpoint import Remembered
from rustmq_sdk._core.ledger import Ledger
from rustmq_sdk._core.on_broker import OnBroker
from rustmq_sdk._core.piece import Piece
from rustmq_sdk._core.settled_runs import Runs
from rustmq_sdk._core.spill import Fitted, fit
from rustmq_sdk.message import DONE, Settler
from rustmq_sdk.values import Assignment, Checkpoint


class Snapshot(NamedTuple):
    """A checkpoint about to be written, and what it will have covered once it is."""

    checkpoint: Checkpoint
    runs: Runs
    """What is settled above the watermark and fits into the checkpoint."""
    settled: int
    """The count of settled messages it covers, on the scale of ``LogBook.settled``."""
    pressed: bool
    """More than three quarters of the checkpoint's room are used: intake should slow down."""
    spill: bytes = b""
    """What did not fit: to be stored before the checkpoint is committed. Empty if it has everything."""


class LogBook(Ledger):
    """One partition's deliveries.

    Args:
        assignment: as for every ledger.
        start: the first offset to fetch; everything below counts as settled.
        remembered: settled above ``start`` and attempts, from the last committed checkpoint.
    """

    def __init__(self, assignment: Assignment, start: int, remembered: Remembered | None = None) -> None:
        super().__init__(assignment, start)
        self.admitted = 0
        """Messages that the assignment ever brought."""
        self.must_write = False
        """A seek: the next commit is written even if it lowers the position."""
        self.attempts = dict(remembered.attempts) if remembered else {}
        self.due_attempts = dict(self.attempts)
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
        piece.number = self.admitted
        self.admitted += len(piece)
        self._mark_remembered(piece)
        self.pass_over(next_offset)
        if piece.counted == len(piece):
            return None, len(offsets)

        self._take_in(piece)
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

    # Position

    @property
    def span(self) -> int:
        """Offsets between the watermark and the newest fetched one."""
        return self.scanned - self.watermark

    @property
    def span_at_most(self) -> int:
        """The same from above, without looking into the first open piece."""
        return self.scanned - next(iter(self.open), self.scanned)

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

    def is_written(self, offset: int) -> bool:
        """Whether the last written checkpoint says that ``offset`` is settled."""
        if self.must_write:
            return False

        if offset < self.written.offset:
            return True

        index = bisect_left(self.written_runs, (offset + 1, 0)) - 1
        return index >= 0 and self.written_runs[index][0] <= offset < self.written_runs[index][1]
