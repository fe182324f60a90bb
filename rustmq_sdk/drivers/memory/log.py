"""The records of one partition, cut into pieces by position, count and bytes."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, TypeAlias, cast

from rustmq_sdk._bell import Bell
from rustmq_sdk.message import AnyPiece, Message
from rustmq_sdk.values import Broken, Gone, Headers, TopicPartition, size_of

Record: TypeAlias = tuple[bytes | None, bytes | None, Headers, int, int]
"""``(payload, key, headers, offset, timestamp)``, in the order in which :class:`Message` wants them."""

Entry: TypeAlias = Record | Broken

RETENTION = "removed by retention"
COMPACTION = "removed by compaction"
NOT_WRITTEN = "beyond the end of the log"


class Cut(NamedTuple):
    """What one look at a partition found; the fields mean what they mean in ``Fetched``."""

    offsets: Sequence[int]
    records: Sequence[Record]
    next_offset: int
    size: int
    broken: Sequence[Broken]
    gone: Sequence[Gone]


@contextmanager
def ringing(bell: Bell, logs: Collection[PartitionLog]) -> Iterator[None]:
    """Rings the bell meanwhile, whenever something is appended to one of the logs."""
    for log in logs:
        log.waiters[bell] = None

    try:
        yield
    finally:
        for log in logs:
            del log.waiters[bell]


def build(records: Sequence[Record], piece: AnyPiece, first: int) -> list[Message]:
    """Turns records into messages; see :data:`rustmq_sdk.slots.Build`."""
    return [
        Message(payload, key, headers, offset, timestamp, piece, index)
        for index, (payload, key, headers, offset, timestamp) in enumerate(records, first)
    ]


class PartitionLog:
    """An append-only list with everything a real log may have: a lost head, holes, markers, undecodable records.

    While offsets have no gap they are computed, not stored. Sizes are stored as running totals, so that a byte limit
    is found by bisection and a fetch costs the same whatever it returns.
    """

    def __init__(self, tp: TopicPartition) -> None:
        self.tp = tp
        self.start = 0
        """The first offset the log still has, or would have: everything below was taken away."""
        self.end = 0
        """One past the last offset."""
        self.largest = 0
        """Bytes of the largest record there ever was: an upper bound for every piece, known without a scan."""
        self.waiters: dict[Bell, None] = {}
        """Rung by the next record. In the order in which they came, so that a seeded schedule repeats."""
        self._entries: list[Entry] = []
        self._totals: list[int] = []
        self._total_before = 0
        self._offsets: list[int] | None = None
        self._broken = 0

    def __len__(self) -> int:
        return len(self._entries)

    def append(self, payload: bytes | None, key: bytes | None, headers: Headers, timestamp: int) -> int:
        """Adds one record and returns its offset. Call :meth:`announce` after the last of a batch."""
        offset = self.end
        self._add((payload, key, headers, offset, timestamp), size_of(payload, key, headers))
        return offset

    def append_broken(self, raw: bytes, error: Exception) -> int:
        """Adds a record that cannot be decoded."""
        offset = self.end
        self._broken += 1
        self._add(Broken(offset, raw, error), len(raw))
        return offset

    def announce(self) -> None:
        """Wakes who waits for records of this partition."""
        for bell in self.waiters:
            bell.ring()

    def skip(self, count: int) -> None:
        """Leaves ``count`` offsets without a record, as transaction markers do."""
        self._number_offsets()
        self.end += count
        self.announce()

    def compact(self, offsets: Iterable[int]) -> None:
        """Removes the records at these offsets and leaves holes, as compaction does."""
        self._number_offsets()
        doomed = set(offsets)
        kept = [(entry, self._size_at(i)) for i, entry in enumerate(self._entries) if _offset(entry) not in doomed]
        end = self.end
        self._entries, self._totals, self._offsets, self._total_before, self._broken = [], [], [], 0, 0
        for entry, size in kept:
            self.end = _offset(entry)
            self._broken += type(entry) is Broken
            self._add(entry, size)

        self.end = end

    def truncate(self, before: int) -> None:
        """Takes away every record below ``before``, as retention does."""
        before = min(before, self.end)
        if before <= self.start:
            return

        cut = self._index(before)
        if cut:
            self._broken -= sum(type(entry) is Broken for entry in self._entries[:cut])
            self._total_before = self._totals[cut - 1]
            del self._entries[:cut], self._totals[:cut]
            if self._offsets is not None:
                del self._offsets[:cut]

        self.start = before

    def cut(self, position: int, max_messages: int, max_bytes: int, *, at_least_one: bool) -> Cut:
        """Records from ``position`` on, within both limits; ``at_least_one`` lets one oversized record through."""
        gone: Sequence[Gone] = ()
        if position < self.start:
            gone = (Gone(self.tp, position, self.start, RETENTION),)
            position = self.start

        first = self._index(position)
        end = min(first + max_messages, len(self._entries))
        before = self._totals[first - 1] if first else self._total_before
        if end > first and self._totals[end - 1] - before > max_bytes:
            end = bisect_right(self._totals, before + max_bytes, first, end)
            end = max(end, first + at_least_one)

        if end > first:
            return self._decode(first, end, self._totals[end - 1] - before, gone)

        # Nothing fits, or nothing is left but holes, which count as scanned. A position may lie beyond the end.
        scanned = max(position, self.end) if end == len(self._entries) else position
        return Cut((), (), scanned, 0, (), gone)

    def read(self, offsets: Sequence[int]) -> Cut:
        """The records at exactly these offsets; what is not there any more is named in ``gone``."""
        found: list[Record] = []
        broken: list[Broken] = []
        gone: list[Gone] = []
        for offset in offsets:
            entry = self._at(offset)
            if entry is None:
                self._note_gone(gone, offset)
            elif isinstance(entry, Broken):
                broken.append(entry)
            else:
                found.append(entry)

        size = sum(size_of(*record[:3]) for record in found)
        next_offset = offsets[-1] + 1 if offsets else self.start
        return Cut([record[3] for record in found], found, next_offset, size, broken, gone)

    def offset_at_time(self, timestamp_ms: int) -> int:
        """The first offset whose record is not older; the end where there is none."""
        for entry in self._entries:
            if not isinstance(entry, Broken) and entry[4] >= timestamp_ms:
                return entry[3]

        return self.end

    def _add(self, entry: Entry, size: int) -> None:
        if self._offsets is not None:
            self._offsets.append(self.end)

        self._entries.append(entry)
        self._totals.append((self._totals[-1] if self._totals else self._total_before) + size)
        self.largest = max(self.largest, size)
        self.end += 1

    def _decode(self, first: int, end: int, size: int, gone: Sequence[Gone]) -> Cut:
        entries = self._entries[first:end]
        next_offset = _offset(self._entries[end]) if end < len(self._entries) else self.end
        if not self._broken:
            dense = range(next_offset - len(entries), next_offset)
            offsets = dense if self._offsets is None else self._offsets[first:end]
            return Cut(offsets, cast("list[Record]", entries), next_offset, size, (), gone)

        records = [entry for entry in entries if not isinstance(entry, Broken)]
        broken = [entry for entry in entries if isinstance(entry, Broken)]
        return Cut([record[3] for record in records], records, next_offset, size, broken, gone)

    def _number_offsets(self) -> None:
        if self._offsets is None:
            self._offsets = [_offset(entry) for entry in self._entries]

    def _index(self, offset: int) -> int:
        if self._offsets is not None:
            return bisect_left(self._offsets, offset)

        return min(max(offset - self.start, 0), len(self._entries))

    def _at(self, offset: int) -> Entry | None:
        index = self._index(offset)
        if index < len(self._entries) and _offset(self._entries[index]) == offset:
            return self._entries[index]

        return None

    def _size_at(self, index: int) -> int:
        return self._totals[index] - (self._totals[index - 1] if index else self._total_before)

    def _note_gone(self, gone: list[Gone], offset: int) -> None:
        reason = RETENTION if offset < self.start else COMPACTION if offset < self.end else NOT_WRITTEN
        if gone and gone[-1].end == offset and gone[-1].reason == reason:
            gone[-1] = gone[-1]._replace(end=offset + 1)
        else:
            gone.append(Gone(self.tp, offset, offset + 1, reason))


def _offset(entry: Entry) -> int:
    return entry.offset if isinstance(entry, Broken) else entry[3]
