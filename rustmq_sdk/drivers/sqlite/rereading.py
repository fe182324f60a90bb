"""Reading single offsets again, for retries whose bodies were not kept."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from rustmq_sdk.drivers.sqlite.codec import DamagedBatch, Record, Records, build, decode
from rustmq_sdk.drivers.sqlite.reading import Position, Row, read_chunk
from rustmq_sdk.drivers.sqlite.topics import PartitionRow, partition_row
from rustmq_sdk.drivers.sqlite.transaction import Queries
from rustmq_sdk.slots import Fetched
from rustmq_sdk.values import Assignment, Broken, Gone, size_of

READ_BYTES = 1024 * 1024
"""How much of a run is read at once."""


def reread(queries: Queries, assignment: Assignment, offsets: Sequence[int], *, check_crcs: bool) -> Fetched:
    """The records at ``offsets`` (increasing); those that are not there any more are named."""
    tp = assignment.tp
    partition = None if tp.partition is None else partition_row(queries, tp.topic, tp.partition)
    found: dict[int, Record] = {}
    broken: list[Broken] = []
    missing: list[int] = []
    with queries.snapshot():
        for offset, batch in [] if partition is None else _batches(queries, partition, offsets, check_crcs=check_crcs):
            if batch is None:
                missing.append(offset)
            elif isinstance(batch, Records):
                found[offset] = batch[offset - batch.base]
            else:
                broken.append(Broken(offset, *batch))

    sizes = [size_of(*record[:3]) for record in found.values()]
    return Fetched(
        assignment,
        tuple(found),
        tuple(found.values()),
        build,
        offsets[-1] + 1 if offsets else 0,
        sum(sizes),
        max(sizes, default=0),
        broken=broken,
        gone=[
            Gone(tp, *run, "deleted, by retention or with its topic")
            for run in _runs(missing if partition else offsets)
        ],
    )


def _batches(
    queries: Queries, partition: PartitionRow, offsets: Sequence[int], *, check_crcs: bool
) -> Iterator[tuple[int, Records | tuple[bytes, Exception] | None]]:
    """Each offset with the batch that holds it, which is read and decoded once."""
    rows: deque[Row] = deque()
    base: int | None = None
    batch: Records | tuple[bytes, Exception] | None = None
    for at, offset in enumerate(offsets):
        if offset < partition.start:
            yield offset, None
            continue

        while rows and rows[0].base + rows[0].length <= offset:
            rows.popleft()

        if not rows:
            rows.extend(read_chunk(queries, Position(partition.id, offset), _run_length(offsets, at), READ_BYTES).rows)

        if not rows or rows[0].base > offset:
            yield offset, None
            continue

        if rows[0].base != base:
            base, batch = rows[0].base, _decoded(rows[0], check_crcs=check_crcs)

        yield offset, batch


def _decoded(row: Row, *, check_crcs: bool) -> Records | tuple[bytes, Exception]:
    try:
        return decode(row.base, row.length, row.data, row.crc if check_crcs else None)
    except DamagedBatch as error:
        return bytes(row.data), error


def _run_length(offsets: Sequence[int], at: int) -> int:
    end = at + 1
    while end < len(offsets) and offsets[end] == offsets[end - 1] + 1:
        end += 1

    return end - at


def _runs(offsets: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The ranges that offsets form: first, and one past the last."""
    at = 0
    while at < len(offsets):
        length = _run_length(offsets, at)
        yield offsets[at], offsets[at] + length
        at += length
