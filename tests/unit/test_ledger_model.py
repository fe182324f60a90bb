"""The ledger against sets of offsets: whatever happens, and what a restart makes of it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant

from rustmq_sdk._core.checkpoint import decode
from rustmq_sdk._core.lane import Waiting
from rustmq_sdk._core.log_book import LogBook, Snapshot
from rustmq_sdk._core.piece import Piece
from rustmq_sdk.message import DONE, FREE, STALE, TAKEN, WATCH, AnyPiece, Message
from rustmq_sdk.values import Assignment, Checkpoint
from tests.unit.settling import NOBODY, TP, ack, write
from tests.unit.steps import Steps, run, step

GAPS = st.sampled_from([0, 0, 0, 1, 2, 7])
"""Offsets that never held a message, before one that does."""


def build(records: Sequence[Any], piece: AnyPiece, first: int) -> list[Message]:
    return [Message(b"", None, (), offset, 0, piece, first + number) for number, offset in enumerate(records)]


def ledger_from(checkpoint: Checkpoint) -> LogBook:
    remembered = decode(checkpoint.offset, checkpoint.extra)
    ledger = LogBook(Assignment(TP, None), checkpoint.offset, remembered)
    ledger.on_broker.checkpoint = checkpoint
    return ledger


@dataclass
class Handle:
    """One delivery, as a user holds it."""

    offset: int
    piece: Piece
    index: int


@dataclass
class Truth:
    """What a checkpoint may claim: what was settled when it was taken."""

    settled: set[int]
    attempts: dict[int, int]
    room: int | None


@dataclass
class Life:
    """What the model knows of the deliveries since the last restart."""

    fetched: set[int] = field(default_factory=set)
    unsettled: set[int] = field(default_factory=set)
    current: dict[int, Handle] = field(default_factory=dict)
    """The one delivery of each unsettled message that can settle it; none while it is taken."""
    taken: dict[int, tuple[Piece, int]] = field(default_factory=dict)
    settled_here: int = 0


class Ledgers(Steps):
    """One partition: offsets with gaps, a driver that fetches them, a user, a commit in flight, restarts."""

    rooms: tuple[int | None, ...] = (None,)

    @initialize(start=st.integers(0, 3), gaps=st.lists(GAPS, min_size=30, max_size=30), size=st.integers(1, 50))
    def begin(self, start: int, gaps: list[int], size: int) -> None:
        self.log: list[int] = []
        self.sizes: dict[int, int] = {}
        self.log_end = self.position = start
        self.life = Life()
        self.started_with: set[int] = set()
        """What the checkpoint that this life started from says is settled."""
        self.ledger = LogBook(Assignment(TP, None), start)
        self.attempts: dict[int, int] = {}
        """How often each unsettled message was nacked."""
        self.handles: list[Handle] = []
        self.truth = Truth(set(), {}, None)
        """Of the checkpoint that the broker has."""
        self.pending: tuple[Snapshot | None, Truth] | None = None
        self.append(gaps, size)

    # The driver

    @step(1, gaps=st.lists(GAPS, min_size=1, max_size=8), size=st.integers(1, 50))
    def append(self, gaps: list[int], size: int) -> None:
        for number, gap in enumerate(gaps):
            self.log.append(self.log_end + gap)
            self.sizes[self.log[-1]] = size + number % 3
            self.log_end = self.log[-1] + 1

    @step(4, data=st.data(), count=st.sampled_from([0, 1, 2, 3, 5, 8]))
    def fetch(self, data: st.DataObject, count: int) -> None:
        at = bisect_left(self.log, self.position)
        offsets = self.log[at : at + count]
        lowest = offsets[-1] + 1 if offsets else self.position
        highest = self.log[at + len(offsets)] if at + len(offsets) < len(self.log) else self.log_end
        next_offset = data.draw(st.integers(lowest, max(lowest, highest)), "next_offset")
        self.position = next_offset
        sizes = [self.sizes[offset] for offset in offsets]
        known = self.life.fetched | self.started_with
        piece, cut = self.ledger.admit(
            offsets, next_offset, size=sum(sizes), largest=max(sizes, default=0), owner=NOBODY
        )
        self.life.fetched.update(offsets)
        fresh = [offset for offset in offsets if offset not in known]
        self.life.unsettled.update(fresh)
        if piece is None:
            assert not fresh
            return

        waiting = Waiting(piece, offsets[cut:], build)
        delivered, _ = waiting.load(len(waiting), 0.0)
        assert [message.offset for message in delivered] == fresh, "delivered twice, or skipped"
        for message in delivered:
            assert isinstance(message._piece, Piece)
            handle = Handle(cast(int, message.offset), message._piece, message._index)
            self.life.current[handle.offset] = handle
            self.handles.append(handle)
            if self.truth.room is None:
                assert message.attempt == 1 + self.attempts.get(handle.offset, 0)

    @step(back=st.integers(1, 20))
    def rewind(self, back: int) -> None:
        self.position = max(self.ledger.written.offset, self.position - back)

    @step(when=lambda self: self.log and self.log[-1] >= self.ledger.scanned, data=st.data())
    def compact(self, data: st.DataObject) -> None:
        """The log drops a message that was not fetched since the last restart."""
        candidates = [offset for offset in self.log if offset >= self.ledger.scanned]
        self.log.remove(data.draw(st.sampled_from(candidates)))

    @step(when=lambda self: self.ledger.scanned < self.log_end, data=st.data())
    def lose_a_range(self, data: st.DataObject) -> None:
        """Retention overtakes: one slot holds the place, nothing else of the range comes."""
        first = self.ledger.scanned
        end = data.draw(st.integers(first + 1, min(first + 4, self.log_end)))
        self.log = [offset for offset in self.log if not first <= offset < end]
        self.log.insert(bisect_left(self.log, first), first)
        self.sizes[first] = 0
        piece, _ = self.ledger.admit((first,), first + 1, size=0, largest=0, owner=NOBODY)
        assert piece is not None
        self.life.taken[first] = self.ledger.take(piece, 0)
        self.ledger.pass_over(end)
        self.position = max(self.position, end)
        self.life.fetched.add(first)
        self.life.unsettled.add(first)

    # The user

    @step(when=lambda self: self.handles, data=st.data())
    def ack_any_handle(self, data: st.DataObject) -> None:
        handle = data.draw(st.sampled_from(self.handles))
        assert ack(handle.piece, handle.index) == (self.life.current.get(handle.offset) is handle)
        if self.life.current.get(handle.offset) is handle:
            self.settled(handle.offset)

    @step(3, when=lambda self: self.life.current, data=st.data(), count=st.integers(1, 6))
    def ack_some(self, data: st.DataObject, count: int) -> None:
        offsets = sorted(self.life.current)
        for offset in data.draw(st.permutations(offsets))[:count]:
            handle = self.life.current[offset]
            assert ack(handle.piece, handle.index)
            self.settled(offset)

    @step(2, when=lambda self: self.ledger.open, data=st.data())
    def ack_a_run(self, data: st.DataObject) -> None:
        piece = data.draw(st.sampled_from(list(self.ledger.open.values())))
        first = data.draw(st.integers(0, len(piece) - 1))
        end = data.draw(st.integers(first + 1, len(piece)))
        mine = [
            offset
            for offset in piece.offsets[first:end]
            if offset in self.life.current and self.life.current[offset].piece is piece
        ]
        assert piece.settle_range(first, end) == len(mine)
        if mine:
            self.ledger.note(piece, end - 1)

        for offset in mine:
            self.settled(offset)

    def settled(self, offset: int) -> None:
        self.life.unsettled.discard(offset)
        self.life.current.pop(offset, None)
        self.life.settled_here += 1
        self.attempts.pop(offset, None)

    @step(3, when=lambda self: self.life.current, data=st.data(), counted=st.booleans())
    def nack_or_release(self, data: st.DataObject, counted: bool) -> None:
        handle = self.life.current.pop(data.draw(st.sampled_from(sorted(self.life.current))))
        attempt = handle.piece.attempt_at(handle.index)
        self.life.taken[handle.offset] = place = self.ledger.take(handle.piece, handle.index)
        if counted:
            self.attempts[handle.offset] = self.ledger.attempts[place[0].offsets[place[1]]] = attempt
            self.ledger.first_failures.setdefault(handle.offset, 1)

    @step(4, when=lambda self: self.life.taken, data=st.data(), dead=st.booleans())
    def come_back_or_be_dead_lettered(self, data: st.DataObject, dead: bool) -> None:
        offset = data.draw(st.sampled_from(sorted(self.life.taken)))
        parent, index = self.life.taken.pop(offset)
        assert parent[index] == TAKEN
        if dead:
            parent[index] = DONE
            self.ledger.note(parent, index)
            self.settled(offset)
            return

        child = self.ledger.retry(parent, index, 1 + self.attempts.get(offset, 0))
        assert child.id_at(0, offset) == f"t[0]@{offset}"
        self.life.current[offset] = Handle(offset, child, 0)
        self.handles.append(self.life.current[offset])

    @step(now=st.sampled_from([True, False, False, False]))
    def look_closer(self, now: bool) -> None:
        if not now:
            return

        self.ledger.watch_everything()
        for piece in self.ledger.open.values():
            assert FREE not in piece

    # Commits

    @step(3, when=lambda self: self.pending is None, data=st.data())
    def take_a_snapshot(self, data: st.DataObject) -> None:
        room = data.draw(st.sampled_from(self.rooms), "room")
        truth = Truth(self.settled_offsets(), dict(self.attempts), room)
        snapshot = self.ledger.snapshot(room)
        for known in (self.ledger.attempts, self.ledger.first_failures, self.ledger.due_attempts):
            assert all(offset in self.life.unsettled or offset >= self.ledger.watermark for offset in known)

        self.pending = snapshot, truth
        # None is as good as written: the broker has it.
        if snapshot is None or data.draw(st.booleans(), "at once"):
            self.hear_of_the_commit(arrives=True)

    @step(4, when=lambda self: self.pending is not None, arrives=st.booleans())
    def hear_of_the_commit(self, arrives: bool) -> None:
        assert self.pending is not None
        (snapshot, truth), self.pending = self.pending, None
        if arrives:
            if snapshot is not None:
                self.ledger.wrote(snapshot)

            self.truth = truth
            self.check_written()
            self.count()

    def settled_offsets(self) -> set[int]:
        """Of everything that ever was in the log, known to be settled: here, or by the checkpoint we started from."""
        return {offset for offset in (self.life.fetched | self.started_with) if offset not in self.life.unsettled}

    def claimed(self) -> set[int]:
        """What the checkpoint that the broker has says is settled."""
        offset, extra = self.ledger.written
        runs = decode(offset, extra).settled
        return {each for each in self.sizes if each < offset or any(first <= each < end for first, end in runs)}

    def check_written(self) -> None:
        claimed = self.claimed()
        known = {offset for offset in claimed if offset in self.life.fetched or offset in self.started_with}
        assert known <= self.truth.settled, "a checkpoint claims what is not settled"
        # What the log has lost is not worth a word.
        missing = {offset for offset in self.truth.settled if offset not in claimed and offset in self.log}
        if self.truth.room is None:
            assert not missing
            assert decode(*self.ledger.written).attempts == {
                offset: count for offset, count in self.truth.attempts.items() if offset not in claimed
            }
        elif missing:
            runs = decode(*self.ledger.written).settled
            assert min(missing) >= max((end for _, end in runs), default=self.ledger.written.offset)

    @step(now=st.booleans())
    def crash(self, now: bool) -> None:
        if now:
            self.restart()

    def restart(self) -> None:
        checkpoint = self.ledger.written
        self.started_with = self.claimed()
        self.life = Life()
        self.ledger.fence()
        for handle in self.handles:
            assert handle.piece[handle.index] in (DONE, TAKEN, STALE), "a late ack would move a lost partition"

        assert (self.ledger.in_flight, self.ledger.in_flight_bytes) == (0, 0)
        self.handles = []
        self.pending = None
        self.attempts = {offset: count for offset, count in decode(*checkpoint).attempts.items() if offset in self.log}
        self.ledger = ledger_from(checkpoint)
        self.position = checkpoint.offset

    # What always holds

    @invariant()
    def the_watermark_is_honest(self) -> None:
        unsettled = self.life.unsettled
        assert self.ledger.watermark == min(unsettled, default=self.ledger.scanned)
        assert self.ledger.span <= self.ledger.span_at_most

    @invariant()
    def the_ledger_knows_what_is_unsettled(self) -> None:
        pieces = self.ledger.open.values()
        unsettled = {
            offset for piece in pieces for offset, byte in zip(piece.offsets, piece, strict=True) if byte != DONE
        }
        assert unsettled == self.life.unsettled

    @invariant()
    def somebody_notices_the_end(self) -> None:
        for first, piece in self.ledger.open.items():
            assert first == piece.offsets[0]
            assert piece.count(DONE) < len(piece), "a piece that is wholly settled is still there"
            assert piece.count(WATCH) + piece.count(TAKEN), "nobody would notice the last ack"
            assert FREE not in piece or WATCH in piece, "nobody would notice until what was taken is settled"

    @invariant()
    def counts_are_never_too_low(self) -> None:
        assert self.ledger.in_flight >= len(self.life.unsettled)
        assert self.ledger.in_flight_bytes >= sum(self.sizes[offset] for offset in self.life.unsettled)
        assert self.ledger.settled <= self.life.settled_here

    @invariant()
    def nothing_adds_up(self) -> None:
        assert set(self.ledger.children) <= self.life.unsettled

    @invariant()
    def a_ledger_that_is_passed_over_has_nothing_to_write(self) -> None:
        if self.ledger.all_written:
            assert self.ledger.snapshot(None) is None

    @step()
    def count(self) -> None:
        ledger = self.ledger
        before = ledger.in_flight, ledger.in_flight_bytes
        counted = ledger.recount_all()
        assert (ledger.in_flight + counted.messages, ledger.in_flight_bytes + counted.bytes) == before
        assert ledger.in_flight == len(self.life.unsettled)
        assert ledger.settled == self.life.settled_here
        open_offsets = {offset for piece in ledger.open.values() for offset in piece.offsets}
        assert open_offsets <= self.life.fetched
        settled = self.life.fetched - self.life.unsettled - self.started_with
        uncommitted = {offset for offset in settled if not ledger.is_written(offset)}
        assert ledger.uncommitted >= len(uncommitted)
        if self.rooms == (None,):
            assert ledger.uncommitted == len(uncommitted)

        assert all(ledger.is_written(offset) == (offset in self.claimed()) for offset in self.sizes)
        waiting = sum(offset not in self.life.fetched and offset not in self.started_with for offset in self.log)
        assert ledger.lag(self.log_end) >= len(self.life.unsettled) + waiting

    def teardown(self) -> None:
        """Whatever happened before: what the log has left and nobody settled comes, and then all is settled."""
        if not hasattr(self, "log"):
            return

        self.restart()
        while self.position < self.log_end:
            before = self.position
            at = bisect_left(self.log, self.position)
            offsets = self.log[at : at + 5]
            next_offset = offsets[-1] + 1 if offsets else self.log_end
            self.position = next_offset
            piece, cut = self.ledger.admit(offsets, next_offset, size=0, largest=0, owner=NOBODY)
            waiting = Waiting(piece, offsets[cut:], build) if piece is not None else None
            delivered = waiting.load(len(waiting), 0.0)[0] if waiting is not None else []
            assert {message.offset for message in delivered} == set(offsets) - self.started_with
            for message in delivered:
                assert isinstance(message._piece, Piece)
                assert ack(message._piece, message._index)

            assert self.position > before

        assert self.ledger.watermark == self.ledger.scanned >= self.log_end
        assert (self.ledger.in_flight, self.ledger.in_flight_bytes, len(self.ledger.open)) == (0, 0, 0)
        write(self.ledger)
        assert self.ledger.written == Checkpoint(self.ledger.scanned)
        assert self.ledger.uncommitted == 0


class LittleRoom(Ledgers):
    rooms = (0, 6, 9, 14)


class AllRooms(Ledgers):
    rooms = (0, 9, 14, 40, None)


@pytest.mark.parametrize("machine", [Ledgers, LittleRoom, AllRooms])
def test_the_ledger_keeps_to_the_model(machine: type[Ledgers]) -> None:
    run(machine, examples=50, steps=35)
