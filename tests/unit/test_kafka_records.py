"""What a piece of a Kafka partition says of itself, whichever way its records came."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import pytest

pytest.importorskip("aiokafka")

from rustmq_sdk.drivers.kafka.records import Row, piece_of, piece_of_rows
from rustmq_sdk.message import DeliveryState
from rustmq_sdk.slots import Fetched
from rustmq_sdk.values import Assignment, TopicPartition

ASSIGNMENT = Assignment(TopicPartition("quakes", 0), 1)
ROWS: list[Row] = [
    (b"body", b"key", (), 7, 1000),
    (None, None, (), 8, 1001),
    (b"", b"", (("name", b"value"), ("empty", None)), 9, 1002),
    (b"larger body", None, (("n", b"v"),), 10, 1003),
]
SIZES = [7, 0, 14, 13]


class Record(NamedTuple):
    """As aiokafka's ``ConsumerRecord``."""

    value: bytes | None
    key: bytes | None
    headers: Any
    offset: int
    timestamp: int


def pieces(rows: list[Row], next_offset: int) -> list[Fetched]:
    return [
        piece_of_rows(ASSIGNMENT, rows, next_offset),
        piece_of(ASSIGNMENT, [Record(*row) for row in rows], next_offset),
    ]


def test_bodies_keys_and_headers_are_counted() -> None:
    for piece in pieces(ROWS, 11):
        assert (piece.size, piece.largest) == (sum(SIZES), max(SIZES))


def test_a_body_without_key_and_headers_is_its_own_size() -> None:
    for piece in pieces([(b"x" * 100, None, (), offset, 0) for offset in range(5)], 5):
        assert (piece.size, piece.largest) == (500, 100)


def test_offsets_without_gaps_are_a_range() -> None:
    for piece in pieces(ROWS, 11):
        assert piece.offsets == range(7, 11)


def test_gaps_in_the_offsets_are_kept() -> None:
    for piece in pieces([ROWS[0], ROWS[3]], 20):
        assert list(piece.offsets) == [7, 10]
        assert piece.next_offset == 20


def test_without_records_only_the_position_moves() -> None:
    for piece in pieces([], 20):
        assert (len(piece.offsets), len(piece.records), piece.next_offset, piece.size) == (0, 0, 20, 0)


def test_the_messages_are_the_same_either_way() -> None:
    state = cast("DeliveryState", object())
    built = [piece.build(piece.records[1:], state, 1) for piece in pieces(ROWS, 11)]
    for messages in built:
        assert [
            (one.payload, one.key, tuple(one.headers), one.offset, one.timestamp, one._index) for one in messages
        ] == [(*row, index) for index, row in enumerate(ROWS[1:], 1)]
        assert all(one._state is state for one in messages)
