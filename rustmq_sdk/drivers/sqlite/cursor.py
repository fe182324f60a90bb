"""One assignment's way through its partition: what was read and not handed out, and what to read next."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from itertools import accumulate

from rustmq_sdk.drivers.sqlite.buffers import give_back
from rustmq_sdk.drivers.sqlite.codec import DamagedBatch, Records, build, decode, joined
from rustmq_sdk.drivers.sqlite.reading import Chunk, Row
from rustmq_sdk.slots import Fetched
from rustmq_sdk.values import Assignment, Broken, Gone


class Cursor:
    """Holds back at most the rest of the batches of one read, so that none is decoded twice.

    Args:
        assignment: whom it serves.
        partition: the id of its partition.
        offset: where to start.
        check_crcs: verify checksums.
    """

    def __init__(self, assignment: Assignment, partition: int, offset: int, *, check_crcs: bool) -> None:
        self.assignment = assignment
        self.partition = partition
        self.read_to = offset
        """The next offset to read from the file."""
        self.growths = 0
        """How often the partition was said to have grown."""
        self.available = 0
        """Messages that can be had without reading; a loss to tell counts as one. Kept, because many partitions are
        asked at every fetch."""
        self._offset = offset
        self._check_crcs = check_crcs
        self._end: int | None = None
        self._waiting: deque[Row | Gone] = deque()
        self._open = _Open(Records(offset, [], [], [], []), 0, 0)

    @property
    def exhausted(self) -> bool:
        """Whether the file is known to have nothing more."""
        return self._end is not None and self.read_to >= self._end

    @property
    def waiting_bytes(self) -> int:
        """Of what was read and not handed out."""
        if not self.available:
            return 0

        return self._open.size + sum(len(each.data) for each in self._waiting if isinstance(each, Row))

    @property
    def promising(self) -> bool:
        """Whether something is there, or may be in the file."""
        return self.available > 0 or self._end is None or self.read_to < self._end

    def grew(self) -> None:
        """The partition may have grown."""
        self.growths += 1
        self._end = None

    def store(self, chunk: Chunk, growths: int) -> None:
        """Takes what was read from :attr:`read_to` on. ``growths``: how many there were when the reading began."""
        # What grew since then the reading may not have seen.
        self._end = chunk.end if growths == self.growths else None
        if self.read_to < chunk.start:
            self._miss(chunk.start, "deleted, by retention or by hand")

        for row in chunk.rows:
            if row.base > self.read_to:
                self._miss(row.base, "missing in the file: rustmq check says what else is")

            self._waiting.append(row)
            self.available += row.base + row.length - self.read_to
            self.read_to = row.base + row.length

        if not chunk.rows and self.read_to < chunk.end:
            self._miss(chunk.end, "missing in the file: rustmq check says what else is")

    def take(self, max_messages: int, max_bytes: int, *, at_least: int = 1) -> Fetched | None:
        """The next piece; None if nothing is there, or fits. ``at_least`` messages come whatever their size."""
        gone = self._losses()
        parts: list[Records] = []
        count = size = largest = 0
        while count < max_messages:
            try:
                opened = self._opened()
            except DamagedBatch as error:
                if parts:
                    break

                return self._damaged(error, max_messages, gone)

            part, part_size = opened.take(max_messages - count, max_bytes - size, at_least=0 if parts else at_least)
            if not part:
                break

            parts.append(part)
            count += len(part)
            size += part_size
            largest = max(largest, opened.largest)

        self.available -= count
        if not parts:
            return self._piece(Records(self._offset, [], [], [], []), gone=gone) if gone else None

        return self._piece(joined(parts), size=size, largest=largest, gone=gone)

    def _miss(self, end: int, reason: str) -> None:
        self._waiting.append(Gone(self.assignment.tp, self.read_to, end, reason))
        self.available += 1
        self.read_to = end

    def _losses(self) -> list[Gone]:
        gone: list[Gone] = []
        while not self._open.records and self._waiting and isinstance(lost := self._waiting[0], Gone):
            gone.append(lost)
            self._waiting.popleft()
            self.available -= 1
            self._offset = lost.end

        return gone

    def _opened(self) -> _Open:
        """What lies at the front, decoded; empty if that is a loss or nothing."""
        if not self._open.records and self._waiting and isinstance(row := self._waiting[0], Row):
            records = decode(row.base, row.length, row.data, row.crc if self._check_crcs else None)
            self._waiting.popleft()
            give_back(row.data)
            if row.base < self._offset:
                records = records.cut(self._offset - row.base, row.length)

            self._open = _Open(records, len(row.data), row.largest)

        return self._open

    def _damaged(self, error: DamagedBatch, max_messages: int, gone: Sequence[Gone]) -> Fetched:
        row = self._waiting[0]
        assert isinstance(row, Row)
        end = row.base + row.length
        first, last = self._offset, min(end, self._offset + max_messages)
        self.available -= last - first
        if last == end:
            self._waiting.popleft()

        # The bytes of the batch go with the first message: once is enough to examine them, and 5,000 copies of a
        # megabyte would bury the dead letters.
        broken = [Broken(offset, bytes(row.data) if offset == first else b"", error) for offset in range(first, last)]
        return self._piece(Records(last, [], [], [], []), size=len(row.data), broken=broken, gone=gone)

    def _piece(
        self,
        records: Records,
        *,
        size: int = 0,
        largest: int = 0,
        broken: Sequence[Broken] = (),
        gone: Sequence[Gone] = (),
    ) -> Fetched:
        offsets = records.offsets
        self._offset = offsets.stop
        return Fetched(self.assignment, offsets, records, build, offsets.stop, size, largest, broken=broken, gone=gone)


class _Open:
    """A decoded batch that is being handed out, ``size`` bytes in all."""

    __slots__ = ("largest", "records", "size")

    def __init__(self, records: Records, size: int, largest: int) -> None:
        self.records = records
        self.size = size
        self.largest = largest

    def take(self, max_messages: int, max_bytes: int, *, at_least: int) -> tuple[Records, int]:
        """The first records that fit, and their bytes."""
        whole, count = self.records, min(len(self.records), max_messages)
        if self.size > max_bytes:
            sums = list(accumulate(whole.cut(0, count).sizes()))
            count = min(count, max(bisect_right(sums, max_bytes), at_least))

        if count == len(whole) and self.size <= max_bytes:
            part, size = whole, self.size
        else:
            part = whole.cut(0, count)
            size = part.size()

        self.records, self.size = whole.cut(count, len(whole)), max(self.size - size, 0)
        return part, size
