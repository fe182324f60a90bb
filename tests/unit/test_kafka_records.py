"""What a piece of a Kafka partition says of itself, and the messages it becomes."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import pytest

pytest.importorskip("aiokafka")

from rustmq_sdk.drivers.kafka.records import Row, piece_of, rows_of
from rustmq_sdk.message import AnyPiece
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
    """As aiokafka has them: without headers there is a list of its own, or none."""

    value: bytes | None
    key: bytes | None
    headers: Any
    offset: int
    timestamp: int


def piece(rows: list[Row], next_offset: int) -> Fetched:
    return piece_of(ASSIGNMENT, rows, next_offset)


def test_no_row_without_headers_has_a_list_of_its_own() -> None:
    records = [Record(b"", None, [], 7, 0), Record(b"", None, (), 8, 0), Record(b"", None, [("name", b"value")], 9, 0)]
    assert [row[2] for row in rows_of(records)] == [(), (), [("name", b"value")]]


def test_bodies_keys_and_headers_are_counted() -> None:
    found = piece(ROWS, 11)
    assert (found.size, found.largest) == (sum(SIZES), max(SIZES))


def test_a_body_without_key_and_headers_is_its_own_size() -> None:
    found = piece([(b"x" * 100, None, (), offset, 0) for offset in range(5)], 5)
    assert (found.size, found.largest) == (500, 100)


def test_offsets_without_gaps_are_a_range() -> None:
    found = piece(ROWS, 11)
    assert found.offsets == range(7, 11)


def test_gaps_in_the_offsets_are_kept() -> None:
    found = piece([ROWS[0], ROWS[3]], 20)
    assert list(found.offsets) == [7, 10]
    assert found.next_offset == 20


def test_without_records_only_the_position_moves() -> None:
    found = piece([], 20)
    assert (len(found.offsets), len(found.records), found.next_offset, found.size) == (0, 0, 20, 0)


def test_messages_are_built_of_any_part_of_a_piece() -> None:
    state = cast("AnyPiece", object())
    found = piece(ROWS, 11)
    messages = found.build(found.records[1:], state, 1)
    assert [(one.payload, one.key, one.headers, one.offset, one.timestamp) for one in messages] == ROWS[1:]
    assert [one._index for one in messages] == [1, 2, 3]
    assert all(one._piece is state for one in messages)
