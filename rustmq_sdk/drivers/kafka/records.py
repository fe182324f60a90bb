"""Records as aiokafka has them, as pieces and as messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol, TypeAlias

from rustmq_sdk.message import DeliveryState, Message
from rustmq_sdk.slots import Fetched
from rustmq_sdk.values import Assignment, Headers

Row: TypeAlias = "tuple[bytes | None, bytes | None, Headers, int, int]"
"""Payload, key, headers, offset and timestamp of a record.

A tuple is unpacked in a third of the time in which a record is asked for its attributes, and without headers or with a
shared ``()`` the garbage collector has nothing to look at: see ``bare.py``.
"""
OFFSET: Final = 3
"""The place of the offset in a row."""


class Record(Protocol):
    """aiokafka's ``ConsumerRecord``, as far as it matters."""

    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Headers: ...


def build(records: Sequence[Record], state: DeliveryState, first: int) -> list[Message]:
    """Turns records into messages; see :data:`rustmq_sdk.slots.Build`."""
    return [
        Message(record.value, record.key, record.headers, record.offset, record.timestamp, state, index)
        for index, record in enumerate(records, first)
    ]


def build_rows(rows: Sequence[Row], state: DeliveryState, first: int) -> list[Message]:
    """Turns rows into messages; see :data:`rustmq_sdk.slots.Build`."""
    return [
        Message(payload, key, headers, offset, timestamp, state, index)
        for index, (payload, key, headers, offset, timestamp) in enumerate(rows, first)
    ]


def piece_of(assignment: Assignment, records: Sequence[Record], next_offset: int) -> Fetched:
    """What one look brought of one partition; without records it only moves ``next_offset``."""
    if not records:
        return Fetched(assignment, (), (), build, next_offset, 0)

    offsets = _dense(records[0].offset, records[-1].offset, len(records)) or [record.offset for record in records]
    sizes = sizes_of(records)
    return Fetched(assignment, offsets, records, build, next_offset, sum(sizes), max(sizes))


def piece_of_rows(assignment: Assignment, rows: Sequence[Row], next_offset: int) -> Fetched:
    """As :func:`piece_of`."""
    if not rows:
        return Fetched(assignment, (), (), build_rows, next_offset, 0)

    offsets = _dense(rows[0][OFFSET], rows[-1][OFFSET], len(rows)) or [row[OFFSET] for row in rows]
    sizes = [
        (len(payload) if payload else 0) + (len(key) if key else 0) + (_size(headers) if headers else 0)
        for payload, key, headers, _, _ in rows
    ]
    return Fetched(assignment, offsets, rows, build_rows, next_offset, sum(sizes), max(sizes))


def sizes_of(records: Sequence[Record]) -> list[int]:
    """Bytes of payload, key and headers of each: what memory budgets count."""
    return [
        len(record.value or b"") + len(record.key or b"") + (_size(headers) if (headers := record.headers) else 0)
        for record in records
    ]


def _size(headers: Headers) -> int:
    return sum([len(name) + len(value or b"") for name, value in headers])


def _dense(first: int, last: int, count: int) -> range | None:
    """The offsets as a range. Compaction and transactions leave gaps, then there is none; most logs have no gaps."""
    return range(first, last + 1) if last - first == count - 1 else None
