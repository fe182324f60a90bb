"""What is read from the file: batches, and the few numbers about partitions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from rustmq_sdk.drivers.sqlite.codec import DamagedBatch, decode
from rustmq_sdk.drivers.sqlite.transaction import Queries


class Row(NamedTuple):
    """One batch, as it lies in the file; a memoryview is from ``buffers``, to be given back."""

    base: int
    length: int
    largest: int
    crc: int
    data: bytes | memoryview


class Position(NamedTuple):
    """Where to read: a partition's id, and the first offset that is wanted."""

    partition: int
    offset: int


class Chunk(NamedTuple):
    """What reading in a partition has brought.

    Attributes:
        rows: batches in order; the first holds the offset that was asked for, or is the next one that exists.
        start, end: of the partition at that moment; both 0 if it was deleted.
    """

    rows: Sequence[Row]
    start: int
    end: int


# Who reads on is at the beginning of a batch nearly always, and then this is a look at an index: half the time of the
# next one.
_NEXT = """
SELECT p.start, p.next, b.base, b.count, b.largest, b.crc, length(b.data),
    CASE WHEN length(b.data) < 65536 THEN b.data END, b.rowid, b.total
FROM partition AS p JOIN batch AS b ON b.partition = ?1 AND b.base = ?2 WHERE p.id = ?1 AND p.next > ?2
"""

# Batches do not overlap, so none but the last that begins at or before the offset can hold it. Said only as a condition
# on the end, a look at the end of the log would go through all its batches to find that none reaches that far.
_FIRST = """
SELECT p.start, p.next, b.base, b.count, b.largest, b.crc, length(b.data),
    CASE WHEN length(b.data) < 65536 THEN b.data END, b.rowid, b.total
FROM partition AS p LEFT JOIN batch AS b ON p.next > ?2 AND b.rowid = coalesce(
    (
        SELECT rowid FROM (
            SELECT rowid, base, count FROM batch WHERE partition = ?1 AND base <= ?2 ORDER BY base DESC LIMIT 1
        ) WHERE base + count > ?2
    ),
    (SELECT rowid FROM batch WHERE partition = ?1 AND base > ?2 ORDER BY base LIMIT 1)
)
WHERE p.id = ?1
"""

# Offsets have no gaps, so `base` alone bounds the messages; `total` counts bytes from the partition's beginning, so it
# bounds the bytes.
_MORE = """
SELECT base, count, largest, crc, length(data), CASE WHEN length(data) < 65536 THEN data END, rowid FROM batch
WHERE partition = ?1 AND base >= ?2 AND base < ?3 AND total - length(data) < ?4 ORDER BY base
"""

# The same in one step of SQLite. Each step releases the interpreter's lock and waits for it again, up to 5 ms beside a
# busy loop; so many small batches come as one JSON text and one blob. For large ones the copying would cost more.
_MORE_AT_ONCE = """
SELECT json_group_array(json_array(base, count, largest, crc, length(data))), CAST(group_concat(data, '') AS BLOB)
FROM (
    SELECT base, count, largest, crc, data FROM batch
    WHERE partition = ?1 AND base >= ?2 AND base < ?3 AND total - length(data) < ?4 ORDER BY base
)
"""

_AT_OR_BEFORE = """
SELECT base, count, data, crc, newest_ms FROM batch WHERE partition = ? AND base <= ? ORDER BY base DESC LIMIT 1
"""

SMALL = 4096
"""Bytes of a batch below which its followers are read in one step."""

_numbers = msgspec.json.Decoder(list[tuple[int, int, int, int, int]])


def read_chunk(queries: Queries, position: Position, messages: int, size: int, ahead: int = 0) -> Chunk:
    """Reads the batches from the offset on, inside a snapshot.

    Args:
        queries: of the snapshot.
        position: where to begin.
        messages: how many; the batch that holds the offset comes whole in any case.
        size: how many bytes of them.
        ahead: where the messages are so small that ``messages`` of them have fewer bytes than this, that many bytes
            are read nevertheless.
    """
    found = queries.row(_NEXT, *position) or queries.row(_FIRST, *position)
    if found is None:
        return Chunk((), 0, 0)

    start, end, base, count, largest, crc, length, data, rowid, total = found
    if base is None:
        return Chunk((), start, end)

    rows = [_row(queries, base, count, largest, crc, length, data, rowid)]
    if (fitting := ahead * count // max(length, 1)) > messages:
        messages, size = fitting, min(size, ahead)

    reached, limit = base + count, position.offset + messages
    bytes_limit = total - length + size
    if reached < min(limit, end) and total < bytes_limit:
        more = _small if length < SMALL else _large
        rows += more(queries, position.partition, reached, limit, bytes_limit)

    return Chunk(rows, start, end)


def read_chunks(
    queries: Queries, positions: Sequence[Position], messages: int, size: int, ahead: int, most: int
) -> list[Chunk]:
    """Reads in several partitions, one after the other; what one does not use of its share is left for those after it.

    Ends early, after the first at the earliest, when ``most`` bytes were read: each partition brings a whole batch, and
    64 batches of 4 MiB would lie in memory beside what is asked for.
    """
    chunks: list[Chunk] = []
    with queries.snapshot():
        for done, position in enumerate(positions):
            if most <= 0 and chunks:
                break

            left = len(positions) - done
            chunk = read_chunk(queries, position, max(1, messages // left), max(1, size // left), ahead)
            for row in chunk.rows:
                messages -= row.length
                size -= len(row.data)
                most -= len(row.data)

            messages, size = max(0, messages), max(0, size)
            chunks.append(chunk)

    return chunks


def _large(queries: Queries, *bounds: int) -> list[Row]:
    return [_row(queries, *row) for row in queries.rows(_MORE, *bounds)]


def _row(
    queries: Queries, base: int, count: int, largest: int, crc: int, length: int, data: bytes | None, rowid: int
) -> Row:
    return Row(base, count, largest, crc, queries.batch_data(rowid, length) if data is None else data)


def _small(queries: Queries, *bounds: int) -> list[Row]:
    found = queries.row(_MORE_AT_ONCE, *bounds)
    assert found is not None
    numbers, data = found
    rows = []
    at = 0
    for base, count, largest, crc, length in _numbers.decode(numbers):
        rows.append(Row(base, count, largest, crc, data[at : at + length]))
        at += length

    rows.sort()  # SQL does not promise that an aggregate sees an inner ORDER BY
    return rows


def offset_at(queries: Queries, partition: int, timestamp_ms: int) -> int:
    """The first offset not older than a time; the end if there is none.

    ``newest_ms`` never falls from batch to batch, even where producers' timestamps do: the first batch that reaches the
    time holds the message. It is found by bisection over the offsets, which needs no index of its own.
    """
    row = queries.row("SELECT start, next FROM partition WHERE id = ?", partition)
    low, high = (0, 0) if row is None else (int(row[0]), int(row[1]))
    end, holding = high, None
    while low < high:
        middle = (low + high) // 2
        found = queries.row(_AT_OR_BEFORE, partition, middle)
        if found is not None and found[4] >= timestamp_ms:
            holding, high = found, found[0]
        else:
            low = middle + 1 if found is None else max(middle, found[0] + found[1] - 1) + 1

    if holding is None:
        return end

    base, count, data, crc, _ = holding
    try:
        stamps = decode(base, count, data, crc).timestamps
    except DamagedBatch:
        return int(base)  # where reading on will say what is wrong

    return next((offset for offset, stamp in enumerate(stamps, base) if stamp >= timestamp_ms), int(base + count))
