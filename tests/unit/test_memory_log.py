"""A partition in memory against a list that does the same slowly."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from rustmq_sdk.drivers.memory.log import COMPACTION, NOT_WRITTEN, RETENTION, PartitionLog
from rustmq_sdk.values import Broken, Gone, TopicPartition

TP = TopicPartition("t", 0)


class LogMachine(RuleBasedStateMachine):
    """Every operation on a log and on a dictionary of offsets to payloads (None for what is broken)."""

    def __init__(self) -> None:
        super().__init__()
        self.log = PartitionLog(TP)
        self.model: dict[int, tuple[bytes, bool]] = {}
        self.start = 0
        self.end = 0

    @rule(payload=st.binary(max_size=12), broken=st.booleans())
    def append(self, payload: bytes, broken: bool) -> None:
        if broken:
            assert self.log.append_broken(payload, ValueError()) == self.end
        else:
            assert self.log.append(payload, None, (), self.end) == self.end

        self.model[self.end] = (payload, broken)
        self.end += 1

    @rule(payloads=st.lists(st.binary(max_size=12), min_size=1, max_size=20))
    def append_many(self, payloads: list[bytes]) -> None:
        for payload in payloads:
            self.append(payload, broken=False)

    @rule(count=st.integers(1, 3))
    def skip(self, count: int) -> None:
        self.log.skip(count)
        self.end += count

    @rule(before=st.integers(0, 60))
    def truncate(self, before: int) -> None:
        self.log.truncate(before)
        self.start = max(self.start, min(before, self.end))
        self.model = {offset: entry for offset, entry in self.model.items() if offset >= self.start}

    @rule(offsets=st.sets(st.integers(0, 60), max_size=5))
    def compact(self, offsets: set[int]) -> None:
        self.log.compact(offsets)
        self.model = {offset: entry for offset, entry in self.model.items() if offset not in offsets}

    @rule(position=st.integers(0, 70), count=st.integers(0, 10), size=st.integers(0, 60), at_least_one=st.booleans())
    def cut(self, position: int, count: int, size: int, at_least_one: bool) -> None:
        found = self.log.cut(position, count, size, at_least_one=at_least_one)
        begin = max(position, self.start)
        expected: list[int] = []
        total = 0
        for offset in sorted(offset for offset in self.model if offset >= begin):
            grown = total + len(self.model[offset][0])
            if len(expected) == count or (grown > size and not (at_least_one and not expected)):
                break

            expected.append(offset)
            total = grown

        assert list(found.offsets) == [offset for offset in expected if not self.model[offset][1]]
        assert [(record[3], record[0]) for record in found.records] == [
            (offset, self.model[offset][0]) for offset in expected if not self.model[offset][1]
        ]
        assert [record.offset for record in found.broken] == [offset for offset in expected if self.model[offset][1]]
        assert found.size == total
        assert list(found.gone) == ([Gone(TP, position, self.start, RETENTION)] if position < self.start else [])
        later = [offset for offset in self.model if offset >= begin and offset not in expected]
        if not later:
            assert found.next_offset == max(begin, self.end)
        elif expected:
            assert found.next_offset == min(later)
        else:
            assert begin <= found.next_offset <= min(later), "nothing fits: nothing is passed over"

    @rule(offsets=st.sets(st.integers(0, 70), min_size=1, max_size=6))
    def read(self, offsets: set[int]) -> None:
        wanted = sorted(offsets)
        found = self.log.read(wanted)
        there = [offset for offset in wanted if offset in self.model]
        assert [record[3] for record in found.records] == [offset for offset in there if not self.model[offset][1]]
        assert [record.offset for record in found.broken] == [offset for offset in there if self.model[offset][1]]
        gone = [(offset, lost.reason) for lost in found.gone for offset in range(lost.first, lost.end)]
        assert gone == [(offset, self._why(offset)) for offset in wanted if offset not in self.model]

    @invariant()
    def ends_agree(self) -> None:
        assert (self.log.start, self.log.end, len(self.log)) == (self.start, self.end, len(self.model))

    def _why(self, offset: int) -> str:
        return RETENTION if offset < self.start else COMPACTION if offset < self.end else NOT_WRITTEN


TestLog = LogMachine.TestCase


@given(st.lists(st.integers(0, 20), max_size=20), st.integers(0, 21))
def test_the_first_offset_not_older_is_found(timestamps: list[int], asked: int) -> None:
    log = PartitionLog(TP)
    log.append_broken(b"", ValueError())
    for timestamp in timestamps:
        log.append(b"", None, (), timestamp)

    expected = [offset for offset, timestamp in enumerate(timestamps, 1) if timestamp >= asked]
    assert log.offset_at_time(asked) == (expected[0] if expected else log.end)


def test_sizes_count_payload_key_and_headers() -> None:
    log = PartitionLog(TP)
    log.append(b"four", b"key", (("name", b"v"), ("none", None)), 0)
    log.append(None, None, (), 0)
    cut = log.cut(0, 10, 1000, at_least_one=True)
    assert cut.size == log.largest == 4 + 3 + 5 + 4


def test_offsets_are_computed_while_they_are_dense() -> None:
    log = PartitionLog(TP)
    for _ in range(10):
        log.append(b"x", None, (), 0)

    assert log.cut(3, 4, 1000, at_least_one=True).offsets == range(3, 7)


def test_a_broken_record_tells_what_was_wrong() -> None:
    log = PartitionLog(TP)
    error = ValueError("no magic")
    log.append_broken(b"raw", error)
    assert log.cut(0, 1, 10, at_least_one=True).broken == [Broken(0, b"raw", error)]
