"""What aiokafka has decoded, as rows, as pieces and as messages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Protocol, TypeAlias

from rustmq_sdk.message import AnyPiece, Message
from rustmq_sdk.slots import Fetched
from rustmq_sdk.values import Assignment, Headers

Room: TypeAlias = "tuple[int, int]"
"""Records, and bytes of them, that may be taken."""
Taken: TypeAlias = "tuple[Sequence[Row], Sequence[int]]"
"""Rows, and the bytes of each."""
Row: TypeAlias = "tuple[bytes | None, bytes | None, Headers, int, int]"
"""Payload, key, headers, offset and timestamp of a record."""
OFFSET: Final = 3
"""The place of the offset in a row."""


class Record(Protocol):
    """What aiokafka's ``ConsumerRecord`` and the record below it have in common."""

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


def rows_of(records: Iterable[Record]) -> list[Row]:
    """To be made at once, while a record is still in the processor's cache; it is not needed any more then.

    While it waited it would be looked at by the garbage collector again and again, and so would be the list that it has
    even where there are no headers. Of tuples that hold no containers the collector lets go the first time.
    """
    return [(one.value, one.key, one.headers or (), one.offset, one.timestamp) for one in records]


def build(rows: Sequence[Row], piece: AnyPiece, first: int) -> list[Message]:
    """Turns rows into messages; see :data:`rustmq_sdk.slots.Build`."""
    return [
        Message(payload, key, headers, offset, timestamp, piece, index)
        for index, (payload, key, headers, offset, timestamp) in enumerate(rows, first)
    ]


def piece_of(
    assignment: Assignment, rows: Sequence[Row], next_offset: int, sizes: Sequence[int] | None = None
) -> Fetched:
    """What one look brought of one partition; without rows it only moves ``next_offset``.

    Args:
        assignment: of the partition.
        rows: its records.
        next_offset: where reading goes on.
        sizes: of the rows, where they are known.
    """
    if not rows:
        return Fetched(assignment, (), (), build, next_offset, 0)

    first, last = rows[0][OFFSET], rows[-1][OFFSET]
    # Compaction and transactions leave gaps; most logs have none.
    dense = last - first == len(rows) - 1
    offsets: Sequence[int] = range(first, last + 1) if dense else [row[OFFSET] for row in rows]
    sizes = sizes or sizes_of(rows)
    return Fetched(assignment, offsets, rows, build, next_offset, sum(sizes), max(sizes))


def sizes_of(rows: Sequence[Row]) -> list[int]:
    """Bytes of payload, key and headers of each: what memory budgets count."""
    return [
        (len(payload) if payload else 0) + (len(key) if key else 0) + (_size(headers) if headers else 0)
        for payload, key, headers, _, _ in rows
    ]


def _size(headers: Headers) -> int:
    return sum([len(name) + len(value or b"") for name, value in headers])
