"""Records as aiokafka has them, as pieces and as messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rustmq_sdk.message import DeliveryState, Message
from rustmq_sdk.slots import Fetched
from rustmq_sdk.values import Assignment, Headers


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


def build(records: Sequence[Record], state: DeliveryState, first: int) -> list[Message]:
    """Turns records into messages; see :data:`rustmq_sdk.slots.Build`."""
    return [
        Message(record.value, record.key, record.headers, record.offset, record.timestamp, state, index)
        for index, record in enumerate(records, first)
    ]


def piece_of(assignment: Assignment, records: Sequence[Record], next_offset: int) -> Fetched:
    """What one look brought of one partition; without records it only moves ``next_offset``."""
    if not records:
        return Fetched(assignment, (), (), build, next_offset, 0)

    first, last = records[0].offset, records[-1].offset
    # Compaction and transactions leave gaps; most logs have none.
    dense = last - first == len(records) - 1
    offsets: Sequence[int] = range(first, last + 1) if dense else [record.offset for record in records]
    sizes = sizes_of(records)
    return Fetched(assignment, offsets, records, build, next_offset, sum(sizes), max(sizes))


def sizes_of(records: Sequence[Record]) -> list[int]:
    """Bytes of payload, key and headers of each: what memory budgets count."""
    sizes = [len(record.value or b"") + len(record.key or b"") for record in records]
    for index, record in enumerate(records):
        if record.headers:
            sizes[index] += sum(len(name) + len(value or b"") for name, value in record.headers)

    return sizes
