from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rustmq_sdk.drivers.sqlite.cursor import Cursor
from rustmq_sdk.drivers.sqlite.packing import encode, pack
from rustmq_sdk.drivers.sqlite.reading import Chunk, Row
from rustmq_sdk.slots import Fetched
from rustmq_sdk.values import Assignment, OutgoingMessage, TopicPartition

HERE = Assignment(TopicPartition("quakes", 0), 1)


def row(base: int, length: int, *, damaged: bool = False) -> Row:
    batch = encode(pack([OutgoingMessage(b"%d" % offset) for offset in range(base, base + length)]), 0)
    return Row(base, length, batch.largest, batch.crc ^ damaged, batch.data)


def cursor_at(offset: int) -> Cursor:
    return Cursor(HERE, 1, offset, check_crcs=True)


def told(piece: Fetched) -> tuple[list[int], list[int], list[tuple[int, int]]]:
    return list(piece.offsets), [each.offset for each in piece.broken], [(gone.first, gone.end) for gone in piece.gone]


def test_a_ring_during_the_look_leaves_it_open_whether_there_is_more() -> None:
    cursor = cursor_at(0)
    before = cursor.growths
    cursor.grew()
    cursor.store(Chunk((), 0, 0), before)
    knows = [cursor.exhausted]  # the look may have come before what the ring was for
    cursor.store(Chunk((), 0, 0), cursor.growths)
    knows.append(cursor.exhausted)
    cursor.grew()
    assert [*knows, cursor.exhausted] == [False, True, False]


def test_losses_and_damage_are_told_where_they_are() -> None:
    cursor = cursor_at(0)
    cursor.store(Chunk((row(4, 4), row(10, 2, damaged=True), row(12, 1)), 5, 15), cursor.growths)
    pieces = []
    while (piece := cursor.take(100, 1000)) is not None:
        pieces.append(piece)

    assert [told(piece) for piece in pieces] == [
        ([5, 6, 7], [], [(0, 5)]),
        ([], [10, 11], [(8, 10)]),
        ([12], [], []),
    ]
    assert [piece.next_offset for piece in pieces] == [8, 12, 13]
    assert cursor.available == 0, "what is not there would keep the rest from being read"
    assert not cursor.exhausted
    cursor.store(Chunk((), 5, 15), cursor.growths)
    last = cursor.take(1, 1)
    assert last is not None
    assert (told(last), last.next_offset) == (([], [], [(13, 15)]), 15)


def test_of_damage_as_well_no_more_is_told_than_asked_for() -> None:
    cursor = cursor_at(1)
    cursor.store(Chunk((row(0, 5, damaged=True), row(5, 1)), 0, 6), cursor.growths)
    available, pieces = [], []
    for _ in range(3):
        available.append(cursor.available)
        pieces.append(cursor.take(3, 1000))

    assert [*available, cursor.available] == [5, 2, 1, 0]
    assert [told(piece) for piece in pieces if piece] == [([], [1, 2, 3], []), ([], [4], []), ([5], [], [])]
    assert [bool(each.raw) for piece in pieces if piece for each in piece.broken] == [True, False, False, True]


@pytest.mark.parametrize("length", [1, 3])
def test_a_message_that_comes_whatever_its_size_counts_with_all_its_bytes(length: int) -> None:
    batch = encode(pack([OutgoingMessage(b"x" * 1000)] * length), 0)
    cursor = cursor_at(0)
    cursor.store(Chunk([Row(0, length, batch.largest, batch.crc, batch.data)], 0, length), cursor.growths)
    sizes = [piece.size for _ in range(length) if (piece := cursor.take(100, 10)) is not None]
    assert sizes == [1000] * length


@given(
    st.lists(st.integers(1, 7), min_size=1, max_size=8),
    st.integers(0, 10),
    st.lists(st.tuples(st.integers(1, 6), st.integers(0, 12)), min_size=1),
)
def test_whatever_is_asked_everything_comes_once_and_in_order(
    lengths: list[int], start: int, asked: list[tuple[int, int]]
) -> None:
    end = sum(lengths)
    rows = [row(sum(lengths[:at]), length) for at, length in enumerate(lengths)]
    rows = [each for each in rows if each.base + each.length > start]
    cursor = cursor_at(start)
    cursor.store(Chunk(rows, 0, end), cursor.growths)
    offsets: list[int] = []
    for turn in range(10 * end):
        messages, size = asked[turn % len(asked)]
        piece = cursor.take(messages, size)
        if piece is None:
            break

        payloads = [record.payload for record in piece.records]
        assert payloads == [b"%d" % offset for offset in piece.offsets]
        assert len(payloads) <= messages
        assert len(payloads) == 1 or sum(map(len, payloads)) <= size
        assert piece.size >= sum(map(len, payloads))
        offsets += piece.offsets

    assert offsets == list(range(start, end))
    assert cursor.available == 0
