"""Recognising repeated appends: the last few of each producer and partition, remembered in the file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from rustmq_sdk.drivers.sqlite.transaction import Queries, Transaction
from rustmq_sdk.errors import PermanentDriverError
from rustmq_sdk.values import ProducerSequence

REMEMBERED = 5
"""Appends of each producer and partition; Kafka's brokers remember as many."""

PRODUCERS = 100
"""Producers of each partition that are not asked for again before each of their appends."""


class Stored(NamedTuple):
    """Where an append went: its first offset, and the time given to messages without one."""

    base: int
    now_ms: int


class _Known(NamedTuple):
    first: int
    length: int
    stored: Stored


_decoder = msgspec.msgpack.Decoder(list[_Known])


class RememberedAppends:
    """The remembered appends of the producers of one partition, as far as they were asked for.

    Args:
        partition: its id.
    """

    def __init__(self, partition: int) -> None:
        self._partition = partition
        self._known: dict[bytes, list[_Known]] = {}
        self._grown: set[bytes] = set()

    def find(self, queries: Queries, sequence: ProducerSequence, count: int) -> Stored | None:
        """What the append of ``count`` messages was answered, if it was stored.

        Raises:
            PermanentDriverError: it overlaps another append, or is older than all that is remembered.
        """
        known = self._of(queries, sequence.producer_id)
        first, end = sequence.first, sequence.first + count
        for other in known:
            if (first, count) == (other.first, other.length):
                return other.stored

            if first < other.first + other.length and other.first < end:
                raise _refused(sequence, count, f"overlap the append {other.first} to {other.first + other.length - 1}")

        if known and first < known[0].first:
            raise _refused(sequence, count, f"are older than all that is remembered (from {known[0].first} on)")

        return None

    def add(self, sequence: ProducerSequence, count: int, stored: Stored) -> None:
        """Remembers an append that :meth:`find` did not know."""
        self._known[sequence.producer_id].append(_Known(sequence.first, count, stored))
        self._grown.add(sequence.producer_id)

    def save(self, transaction: Transaction) -> None:
        """Writes what was added."""
        for producer in self._grown:
            del self._known[producer][:-REMEMBERED]
            transaction.execute(
                "INSERT INTO producer (partition, id, seen_ms, appends) VALUES (?1, ?2, ?3, ?4) "
                "ON CONFLICT DO UPDATE SET seen_ms = ?3, appends = ?4",
                self._partition,
                producer,
                transaction.now_ms,
                msgspec.msgpack.encode(self._known[producer]),
            )

        self._grown.clear()
        if len(self._known) > PRODUCERS:
            self._known.clear()

    def _of(self, queries: Queries, producer: bytes) -> list[_Known]:
        if producer not in self._known:
            sql = "SELECT appends FROM producer WHERE partition = ? AND id = ?"
            row = queries.row(sql, self._partition, producer)
            self._known[producer] = [] if row is None else _decoder.decode(row[0])

        return self._known[producer]


def _refused(sequence: ProducerSequence, count: int, problem: str) -> PermanentDriverError:
    numbers: Sequence[int] = (sequence.first, sequence.first + count - 1)
    return PermanentDriverError(
        f"the sequence numbers {numbers[0]} to {numbers[1]} {problem}. "
        "Repeat an append unchanged and before the next one, and use a producer id in one place only",
        slot="sink",
        operation="append",
    )
