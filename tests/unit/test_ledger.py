"""The ledger by examples: what is settled, counted, remembered and written."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise

import pytest

from rustmq_sdk._core.checkpoint import Remembered
from rustmq_sdk._core.log_book import LogBook, Snapshot
from rustmq_sdk._core.piece import Piece
from rustmq_sdk.message import DONE, STALE
from rustmq_sdk.values import Assignment, Checkpoint
from tests.unit.settling import NOBODY, TP, ack, piece_of, write


def test_the_watermark_stands_at_the_first_unsettled_message() -> None:
    ledger = LogBook(Assignment(TP, None), 5)
    piece = piece_of(ledger, [5, 6, 9], 12)
    assert ledger.watermark == 5
    assert ack(piece, 1)
    assert ledger.watermark == 5
    assert ack(piece, 0)
    assert ledger.watermark == 9
    assert ack(piece, 2)
    assert ledger.watermark == 12
    assert (ledger.in_flight, ledger.in_flight_bytes, len(ledger.open)) == (0, 0, 0)


def test_a_rewound_driver_brings_nothing_twice_and_settles_nothing() -> None:
    ledger = LogBook(Assignment(TP, None), 0)
    piece = piece_of(ledger, range(3))
    assert ledger.admit(range(3), 3, size=30, largest=10, owner=NOBODY) == (None, 3)
    again, cut = ledger.admit(range(5), 5, size=50, largest=10, owner=NOBODY)
    assert again is not None
    assert (cut, list(again.offsets), ledger.watermark) == (3, [3, 4], 0)
    assert all(ack(piece, index) for index in range(3))
    assert ledger.watermark == 3


def test_the_bytes_of_what_a_rewind_left_over_are_not_guessed_too_low() -> None:
    """The records that are cut off may be the small ones."""
    ledger = LogBook(Assignment(TP, None), 0)
    piece_of(ledger, range(9))
    before = ledger.in_flight_bytes
    ledger.admit(range(10), 10, size=1009, largest=1000, owner=NOBODY)
    assert ledger.in_flight_bytes - before >= 1000


def test_a_late_ack_of_the_first_attempt_does_not_settle_the_second() -> None:
    ledger = LogBook(Assignment(TP, None), 0)
    piece = piece_of(ledger, range(3))
    for index in range(3):
        parent, slot = ledger.take(piece, index)
        child = ledger.retry(parent, slot, 2)
        assert not ack(piece, index)
        assert ledger.watermark == index
        assert (child.attempt_at(0), child.id_at(0, None)) == (2, "t[0]")
        assert ack(child, 0)
        assert ledger.watermark == index + 1


def test_a_retry_carries_the_fence_that_its_partition_has_now() -> None:
    """A rebalance may have given the partition back: a store that has seen the new fence refuses the old one."""
    ledger = LogBook(Assignment(TP, 1), 0)
    parent, slot = ledger.take(piece_of(ledger, range(1)), 0)
    ledger.assignment = Assignment(TP, 2)
    assert ledger.retry(parent, slot, 2).assignment is ledger.assignment


def test_a_batch_ack_leaves_the_retry_of_a_message_that_was_nacked_out_of_it_alone() -> None:
    ledger = LogBook(Assignment(TP, None), 0)
    piece = piece_of(ledger, range(3))
    child = ledger.retry(*ledger.take(piece, 2), 2)
    ledger.attempts[2] = 1
    assert piece.settle_range(0, 3) == 2
    ledger.note(piece, 2)
    assert (ledger.children, ledger.attempts, ledger.watermark) == ({2: child}, {2: 1}, 2)
    assert ack(child, 0)
    assert (ledger.children, ledger.attempts, ledger.watermark) == ({}, {}, 3)


def test_dead_letters_of_messages_that_were_retried_leave_nothing_behind() -> None:
    ledger = LogBook(Assignment(TP, None), 0)
    stuck = piece_of(ledger, range(2))
    for _ in range(100):
        first = ledger.scanned
        piece = piece_of(ledger, range(first, first + 1))
        ledger.attempts[first] = 1
        ledger.first_failures[first] = 0
        parent, slot = ledger.take(piece, 0)
        ledger.take(ledger.retry(parent, slot, 2), 0)
        parent[slot] = DONE
        ledger.note(parent, slot)

    assert (ledger.watermark, len(ledger.open), ledger.in_flight) == (0, 1, 2)
    assert ledger.children == ledger.attempts == ledger.first_failures == {}
    assert stuck.first_unsettled() == 0


def test_attempts_of_a_message_that_compaction_took_do_not_stop_later_commits() -> None:
    ledger = LogBook(Assignment(TP, None), 10, Remembered(attempts={12: 3}))
    piece = piece_of(ledger, [10, 11, 13])
    assert all(ack(piece, index) for index in range(3))
    assert write(ledger) is not None
    assert ledger.written == Checkpoint(14)
    assert ledger.attempts == ledger.due_attempts == {}


def test_what_is_remembered_right_after_a_settled_piece_stays_remembered() -> None:
    ledger = LogBook(Assignment(TP, None), 10, Remembered([(15, 20)]))
    piece = piece_of(ledger, range(10, 15))
    assert piece.settle_range(0, 5) == 5
    ledger.note(piece, 4)
    assert write(ledger) is not None
    assert ledger.written == Checkpoint(20)
    assert ledger.admit(range(15, 20), 20, size=50, largest=10, owner=NOBODY) == (None, 5)


def test_a_ledger_is_passed_over_once_all_it_has_to_say_is_written() -> None:
    ledger = LogBook(Assignment(TP, None), 10)
    assert ledger.all_written
    piece = piece_of(ledger, range(10, 12))
    said = [ledger.all_written]
    ack(piece, 1)
    said.append(ledger.all_written)
    write(ledger)  # with 11 above the watermark
    said.append(ledger.all_written)
    ack(piece, 0)
    write(ledger)
    assert [*said, ledger.all_written] == [False, False, False, True]
    ledger.must_write = True
    assert not ledger.all_written


@pytest.mark.parametrize("offsets", [range(100, 150), [100 + 3 * number + number % 2 for number in range(50)]])
def test_what_is_settled_above_is_everything_but_the_unsettled_runs(offsets: Sequence[int]) -> None:
    rng = random.Random(1)
    for _ in range(50):
        ledger = LogBook(Assignment(TP, None), 100)
        pieces = [piece_of(ledger, offsets[start : start + 10]) for start in range(0, 50, 10)]
        for piece in pieces:
            for index in rng.sample(range(10), rng.randrange(11)):
                ack(piece, index)

        unsettled = {piece.offsets[index] for piece in pieces for index in range(10) if piece[index] != DONE}
        runs = ledger.settled_above()
        above = [offset for first, end in runs for offset in range(first, end)]
        assert all(first < end < after for (first, end), (after, _) in pairwise(runs))
        assert unsettled.isdisjoint(above)
        assert set(offsets) <= unsettled | set(above) | set(range(ledger.watermark))


def test_messages_the_log_has_lost_may_lie_around_remembered_ones() -> None:
    ledger = LogBook(Assignment(TP, None), 10, Remembered([(50, 60), (150, 160)]))
    piece = piece_of(ledger, (10,))
    ledger.take(piece, 0)
    ledger.pass_over(100)
    assert ledger.settled_above() == [(11, 100), (150, 160)]
    piece[0] = DONE
    ledger.note(piece, 0)
    assert ledger.watermark == 100
    ledger.pass_over(50)
    assert ledger.watermark == 100


def test_a_durable_ack_after_a_seek_waits_for_a_commit_of_the_new_position() -> None:
    ledger = LogBook(Assignment(TP, None), 0)
    ledger.on_broker.checkpoint = Checkpoint(500)
    ledger.must_write = True
    piece = piece_of(ledger, range(3))
    assert ack(piece, 0)
    assert not ledger.is_written(0)
    assert write(ledger) is not None
    assert ledger.is_written(0)
    assert not ledger.is_written(1)


def test_a_seek_is_written_even_where_the_position_stays() -> None:
    ledger = LogBook(Assignment(TP, None), 5)
    assert ledger.snapshot(None) is None
    ledger.must_write = True
    assert write(ledger) == Snapshot(Checkpoint(5), [], 0, pressed=False)
    assert ledger.snapshot(None) is None


def test_what_did_not_fit_is_counted_as_uncommitted() -> None:
    ledger = LogBook(Assignment(TP, None), 0)
    piece = piece_of(ledger, range(2000))
    for index in range(1000, 2000):
        ack(piece, index)

    assert write(ledger, 40) is not None
    assert ledger.uncommitted == 0
    # What fits shrinks when the part in front gets ragged: what comes after it was covered, and is not any more.
    for index in random.Random(1).sample(range(1000), 500):
        ack(piece, index)

    snapshot = write(ledger, 40)
    assert snapshot is not None
    assert snapshot.pressed
    left_out = sum(piece[index] == DONE and not ledger.is_written(index) for index in range(2000))
    assert 1000 < left_out == ledger.uncommitted


def test_gaps_that_were_left_out_do_not_count_as_uncommitted_messages() -> None:
    """A compacted log has few messages a million offsets: they must not stop intake of all partitions."""
    ledger = LogBook(Assignment(TP, None), 0)
    offsets = [number * 1_000_000 for number in range(50)]
    piece = piece_of(ledger, offsets)
    for index in range(2, 50, 2):
        ack(piece, index)

    assert write(ledger, 20) is not None
    assert 0 < ledger.uncommitted <= 24


def test_a_lost_partition_is_fenced_whatever_its_messages_wait_for() -> None:
    ledger = LogBook(Assignment(TP, None), 0)
    piece = piece_of(ledger, range(4))
    ack(piece, 0)
    child = ledger.retry(*ledger.take(piece, 1), 2)
    ledger.take(piece, 2)
    ledger.fence()
    assert list(piece) == [DONE, STALE, STALE, STALE]
    assert list(child) == [STALE]
    assert not any(ack(piece, index) for index in range(4))
    assert not ack(child, 0)
    assert (ledger.in_flight, ledger.in_flight_bytes, ledger.watermark) == (0, 0, 4)


@pytest.mark.parametrize("seed", range(3))
def test_one_stuck_message_costs_bytes_however_long_it_lasts(seed: int) -> None:
    rng = random.Random(seed)
    ledger = LogBook(Assignment(TP, None), 0)
    stuck = piece_of(ledger, range(1))
    ledger.take(stuck, 0)
    open_pieces: list[Piece] = []
    for _ in range(500):
        open_pieces.append(piece_of(ledger, range(ledger.scanned, ledger.scanned + rng.randint(1, 40))))
        if len(open_pieces) < 5:
            continue

        piece = open_pieces.pop(rng.randrange(5))
        for index in rng.sample(range(len(piece)), len(piece)):
            if rng.random() < 0.1:
                parent, slot = ledger.take(piece, index)
                ledger.attempts[parent.offsets[slot]] = 1
                ack(ledger.retry(parent, slot, 2), 0)
            else:
                ack(piece, index)

        write(ledger, 4000)
        assert len(ledger.open) <= 6
        assert not ledger.children
        assert not ledger.attempts
        assert len(ledger.settled_above()) <= 6
        assert ledger.in_flight == 1 + sum(map(len, open_pieces))

    assert ledger.scanned > 5000
    assert ledger.watermark == 0
