"""Taking records out of aiokafka by the batch, without the ``ConsumerRecord`` that it makes of each.

With that object, and the generators around it, a record takes 950 ns; as a row, 350. What :func:`take` does is what
``FetchResult.getall()`` and ``PartitionRecords`` do, by the batch: checksums, transactions that were aborted, markers,
offsets with gaps.

It rests on how aiokafka 0.14 is built inside. A release that is built differently gets its own way: slower, and the
same messages (``POSSIBLE`` is False then).
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException

from rustmq_sdk.drivers.kafka.records import OFFSET, Room, Row, Taken, rows_of, sizes_of


def _possible() -> bool:
    """Whether this release has all that is used below."""
    try:
        inside = set(fetcher.PartitionRecords.__init__.__code__.co_names) | set(vars(fetcher.PartitionRecords))
        outside = set(fetcher.FetchResult.__init__.__code__.co_names) | set(vars(fetcher.FetchResult))
    except AttributeError:
        return False

    return inside >= _OF_RECORDS and outside >= _OF_RESULTS


_OF_RECORDS = {
    "_aborted_producers", "_check_crcs", "_consume_aborted_up_to", "_contains_abort_marker", "_isolation_level",
    "_records", "next_fetch_offset",
}  # fmt: skip
_OF_RESULTS = {"_partition_records", "_topic_partition", "_update_position", "check_assignment", "has_more"}

POSSIBLE = _possible()
"""Whether :func:`take` can be used with this release of aiokafka."""


def take(arrived: fetcher.FetchResult, room: Room, *, at_least_one: bool) -> Taken:
    """What there is room for of what was fetched of a partition; the position moves beyond it.

    Call ``arrived.has_more()`` then, also if it raises: without more, aiokafka's table should forget it.

    Args:
        arrived: what was fetched.
        room: records, and bytes: a compressed batch may be a hundred times as large as what was fetched.
        at_least_one: also if it is larger than the room.

    Raises:
        CorruptRecordException: the batch at the position fails its checksum.
        Exception: it cannot be decoded or decompressed. What is before it comes first.
    """
    partition = arrived._topic_partition
    if not arrived.check_assignment(partition) or not arrived.has_more():
        return (), ()

    source = arrived._partition_records
    rows = _rows(source)
    most, most_bytes = room
    taken: list[Row] = []
    sizes: list[int] = []
    done = True
    try:
        while len(taken) < most and rows.fill(source):
            size = rows.move(taken, sizes, (most, most_bytes), at_least_one=at_least_one and not taken)
            source.next_fetch_offset = rows.next_offset
            most_bytes -= size
            if rows.first < len(rows.rows):
                break

        done = rows.finished(source)
    except Exception:
        # First what is before it. The rest of the piece is dropped, so it is met again when that is fetched again.
        if not taken:
            raise
    finally:
        arrived._update_position()
        if done:
            arrived._partition_records = None

    return taken, sizes


class _Rows:
    """The decoded batch of what was fetched of a partition, as far as it was not handed out."""

    __slots__ = ("batch_end", "first", "rows", "sizes")

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.sizes: list[int] = []
        self.first = 0
        self.batch_end = 0

    @property
    def next_offset(self) -> int:
        """Where reading goes on. A batch keeps its last offset even if compaction took its last record."""
        return self.rows[self.first][OFFSET] if self.first < len(self.rows) else self.batch_end

    def fill(self, source: fetcher.PartitionRecords) -> bool:
        """Decodes the next batch that has records for us, if there is nothing left of this one."""
        while self.first >= len(self.rows):
            if not source._records.has_next():
                return False

            batch = source._records.next_batch()
            if source._check_crcs and not batch.validate_crc():
                raise CorruptRecordException(f"Invalid CRC - {source._tp}")

            self.rows = [] if _is_hidden(source, batch) else _from(source.next_fetch_offset, batch)
            self.sizes = sizes_of(self.rows)
            self.first = 0
            self.batch_end = batch.next_offset
            if not self.rows:
                source.next_fetch_offset = self.batch_end

        return True

    def move(self, taken: list[Row], sizes: list[int], room: Room, *, at_least_one: bool) -> int:
        """As many as there is room for; answers their bytes."""
        most, most_bytes = room
        first, end = self.first, min(len(self.rows), self.first + most - len(taken))
        moved = self.sizes[first:end] if first or end < len(self.rows) else self.sizes
        size = sum(moved)
        if size > most_bytes:
            fitting = bisect_right(list(accumulate(moved)), most_bytes) or at_least_one
            end = first + fitting
            moved = moved[:fitting]
            size = sum(moved)

        taken += self.rows[first:end] if first or end < len(self.rows) else self.rows
        sizes += moved
        self.first = end
        return size

    def finished(self, source: fetcher.PartitionRecords) -> bool:
        """Nothing is left of the piece."""
        return self.first >= len(self.rows) and not source._records.has_next()


def _from(offset: int, batch: Any) -> list[Row]:
    """The rows of a batch. Where a position is inside of it, the broker sends what is before as well."""
    rows = rows_of(batch)
    return [row for row in rows if row[OFFSET] >= offset] if rows and rows[0][OFFSET] < offset else rows


def _rows(source: Any) -> _Rows:
    # With the piece itself: when a rebalance or a seek has aiokafka throw the piece away, they go with it.
    rows = vars(source).get("rustmq_rows")
    if rows is None:
        rows = source.rustmq_rows = _Rows()

    return rows  # type: ignore[no-any-return]


def _is_hidden(source: Any, batch: Any) -> bool:
    """Whether a batch has no records for readers: a marker, or of a transaction that was aborted."""
    if source._isolation_level == fetcher.READ_COMMITTED and batch.producer_id is not None:
        source._consume_aborted_up_to(batch.base_offset)
        if batch.is_control_batch and source._contains_abort_marker(batch):
            source._aborted_producers.discard(batch.producer_id)

        if batch.is_transactional and batch.producer_id in source._aborted_producers:
            return True

    return bool(batch.is_control_batch)
