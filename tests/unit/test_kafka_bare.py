"""Taking records by the batch gives what aiokafka gives one by one, whatever a log may look like."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator

import pytest

pytest.importorskip("aiokafka")

from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import READ_COMMITTED, READ_UNCOMMITTED, FetchResult, PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from rustmq_sdk.drivers.kafka import bare
from rustmq_sdk.drivers.kafka.records import OFFSET, Row, sizes_of

PARTITION = TopicPartition("quakes", 0)
BASE_OFFSET, ATTRIBUTES, LAST_DELTA, FIRST_RECORD = 0, 21, 23, 61
CONTROL = 0x20
ABORT, COMMIT = 0, 1
PLENTY = 1 << 30


class Log:
    """Batches as a broker sends them, with offsets that compaction and markers have torn."""

    def __init__(self, rng: random.Random) -> None:
        self.data = b""
        self.aborted: list[tuple[int, int]] = []
        self.end = 0
        self._rng = rng
        for _ in range(rng.randint(1, 8)):
            self._grow()

    def _grow(self) -> None:
        rng = self._rng
        if rng.random() < 0.3:
            producer, first = rng.randint(1, 3), self.end
            self._batch(producer=producer)
            ends = rng.choice((ABORT, COMMIT))
            if ends == ABORT:
                self.aborted.append((producer, first))

            self._batch(producer=producer, marker=ends)
        else:
            self._batch()

    def _batch(self, *, producer: int = -1, marker: int | None = None) -> None:
        rng = self._rng
        compression = 0 if marker is not None else rng.choice((0, 1))
        builder = DefaultRecordBatchBuilder(2, compression, producer >= 0, producer, 0, 0, 1 << 20)
        if marker is not None:
            builder.append(0, 1000, struct.pack(">hh", 0, marker), b"", [])
            last = 0
        else:
            last = -1
            for _ in range(rng.randint(1, 6)):
                last += rng.choice((1, 1, 1, 3))
                headers = [("name", b"value"), ("none", None)] if rng.random() < 0.3 else []
                builder.append(last, 1000 + last, rng.choice((None, b"k")), rng.choice((None, b"", b"x")), headers)

            last += rng.choice((0, 0, 2))

        raw = bytearray(builder.build())
        struct.pack_into(">q", raw, BASE_OFFSET, self.end)
        struct.pack_into(">i", raw, LAST_DELTA, last)
        if marker is not None:
            raw[ATTRIBUTES + 1] |= CONTROL

        self.data += bytes(raw)
        self.end += last + 1


class Assignment:
    """As much of aiokafka's as a fetch result looks at."""

    active = True
    paused = False

    def __init__(self, position: int) -> None:
        self.position = position

    def state_value(self, _partition: TopicPartition) -> Assignment:
        return self

    def consumed_to(self, position: int) -> None:
        self.position = position


def fetched(log: Log, position: int, isolation: int, *, check_crcs: bool = False) -> tuple[FetchResult, Assignment]:
    assignment = Assignment(position)
    records = PartitionRecords(
        PARTITION, MemoryRecords(log.data), list(log.aborted), position, None, None, check_crcs, isolation
    )
    return FetchResult(PARTITION, assignment=assignment, partition_records=records, backoff=0.0), assignment


def one_by_one(log: Log, position: int, isolation: int) -> tuple[list[Row], int]:
    result, assignment = fetched(log, position, isolation)
    rows: list[Row] = [(one.value, one.key, tuple(one.headers), one.offset, one.timestamp) for one in result.getall()]
    return rows, assignment.position


def by_batch(log: Log, position: int, isolation: int, sizes: Iterator[int]) -> tuple[list[Row], int]:
    result, assignment = fetched(log, position, isolation)
    found: list[Row] = []
    while result.has_more():
        most = next(sizes)
        rows, _ = bare.take(result, (most, PLENTY), at_least_one=True)
        assert len(rows) <= most
        found += [(*row[:2], tuple(row[2]), *row[3:]) for row in rows]
        # What was not handed out yet is beyond the position, and what was is before it.
        assert not found or found[-1][OFFSET] < assignment.position

    return found, assignment.position


def random_sizes(rng: random.Random) -> Iterator[int]:
    while True:
        yield rng.randint(1, 7)


def test_this_release_of_aiokafka_is_known() -> None:
    assert bare.POSSIBLE


@pytest.mark.parametrize("isolation", [READ_UNCOMMITTED, READ_COMMITTED])
def test_the_records_are_the_same(isolation: int) -> None:
    for seed in range(300):
        rng = random.Random(seed)
        log = Log(rng)
        position = rng.randint(0, log.end - 1)
        assert by_batch(log, position, isolation, random_sizes(rng)) == one_by_one(log, position, isolation), seed


def test_a_seek_throws_away_what_was_decoded() -> None:
    log = Log(random.Random(3))
    result, assignment = fetched(log, 0, READ_UNCOMMITTED)
    assert len(bare.take(result, (1, PLENTY), at_least_one=True)[0]) == 1
    assignment.position = 0
    assert bare.take(result, (1, PLENTY), at_least_one=True) == ((), ())
    assert not result.has_more()


@pytest.mark.parametrize("room", [0, 1, 2, 3, 5, 100])
def test_no_more_bytes_are_taken_than_there_is_room_for_except_of_one_record(room: int) -> None:
    for seed in range(100):
        log = Log(random.Random(seed))
        result, _ = fetched(log, 0, READ_UNCOMMITTED)
        found: list[Row] = []
        while result.has_more():
            before = result._partition_records.next_fetch_offset
            rows, sizes = bare.take(result, (PLENTY, room), at_least_one=True)
            assert list(sizes) == sizes_of(rows)
            assert sum(sizes) <= room or len(rows) == 1
            assert rows or not result.has_more() or result._partition_records.next_fetch_offset > before
            found += [(*row[:2], tuple(row[2]), *row[3:]) for row in rows]

        assert found == one_by_one(log, 0, READ_UNCOMMITTED)[0], seed


def test_what_has_no_room_waits_where_something_else_was_taken() -> None:
    log = Log(random.Random(3))
    result, _ = fetched(log, 0, READ_UNCOMMITTED)
    sizes = sizes_of(one_by_one(log, 0, READ_UNCOMMITTED)[0])
    none = next(place for place, size in enumerate(sizes) if size)
    assert len(bare.take(result, (PLENTY, 0), at_least_one=False)[0]) == none
    assert bare.take(result, (PLENTY, 0), at_least_one=False) == ([], [])
    assert len(bare.take(result, (PLENTY, PLENTY), at_least_one=False)[0]) == len(sizes) - none


def test_a_damaged_batch_is_named() -> None:
    log = Log(random.Random(1))
    damaged = bytearray(log.data)
    damaged[FIRST_RECORD + 1] ^= 0xFF
    log.data = bytes(damaged)
    result, _ = fetched(log, 0, READ_UNCOMMITTED, check_crcs=True)
    with pytest.raises(CorruptRecordException):
        bare.take(result, (10, PLENTY), at_least_one=True)
