"""What was taken is handed over, whatever is wrong with another partition, or after it."""

from __future__ import annotations

import asyncio

import anyio
import pytest

pytest.importorskip("aiokafka")

from aiokafka import TopicPartition
from aiokafka.codec import gzip_encode
from aiokafka.consumer.fetcher import READ_UNCOMMITTED
from aiokafka.errors import CorruptRecordException, TopicAuthorizationFailedError
from aiokafka.record.util import calc_crc32c

from rustmq_sdk.drivers.kafka import bare
from rustmq_sdk.drivers.kafka.records import OFFSET
from rustmq_sdk.drivers.kafka.salvage import UNREADABLE, read
from rustmq_sdk.errors import TransientDriverError
from rustmq_sdk.values import Broken
from tests.unit.kafka_fetching import ATTRIBUTES, BODY, CRC, NO_NAME, RECORDS, Setting, batch, setting

PARTITION = TopicPartition("quakes", 0)
FIRST_RECORD = 61
"""Where it begins in a batch."""

pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])


@pytest.fixture(params=[True, False], ids=["by the batch", "getmany"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bare, "POSSIBLE", request.param)


class Reader:
    """Fetches until told, and keeps what came in order.

    Attributes:
        offsets: that came, by partition.
        broken: the same of records that could not be decoded.
        gone: ranges that were told to be lost.
        failures: that were raised.
    """

    def __init__(self, it: Setting) -> None:
        self._it = it
        self.offsets: dict[int, list[int]] = {number: [] for number in it.cluster.ends}
        self.broken: list[Broken] = []
        self.gone: list[tuple[int, int]] = []
        self.failures: list[Exception] = []

    async def look(self, times: int, most: int = 1000) -> None:
        for _ in range(times):
            try:
                pieces = await self._it.look(most)
            except (TransientDriverError, TopicAuthorizationFailedError) as error:
                self.failures.append(error)
                continue

            for number, piece in pieces.items():
                self.offsets[number] += piece.offsets
                self.broken += piece.broken
                self.gone += [(gone.first, gone.end) for gone in piece.gone]


# Another partition


async def test_other_partitions_flow_while_a_broker_is_asked_where_a_log_begins() -> None:
    async with setting({0: 100, 1: 100, 2: 100}) as it:
        it.cluster.lost, it.offsets.range = {1}, (50, 100)
        it.offsets.gate.clear()
        reader = Reader(it)
        await reader.look(30)
        assert reader.offsets == {0: list(range(100)), 1: [], 2: list(range(100))}
        assert sum(1 in partitions for partitions, _ in it.cluster.asked) <= 2, "one question is enough"
        it.cluster.lost = set()
        it.offsets.gate.set()
        await reader.look(30)
        assert reader.gone == [(0, 50)]
        assert reader.offsets[1] == list(range(50, 100))


@pytest.mark.parametrize("number", [0, 1, 2])
async def test_nothing_is_lost_of_other_partitions_where_nobody_says_where_a_log_begins(number: int) -> None:
    async with setting({0: 100, 1: 100, 2: 100}) as it:
        it.cluster.lost, it.offsets.failures, it.offsets.range = {number}, 3, (50, 100)
        reader = Reader(it)
        await reader.look(60)
        assert len(reader.failures) == 3
        assert reader.gone[:1] == [(0, 50)]
        del reader.offsets[number]
        assert list(reader.offsets.values()) == [list(range(100))] * 2


@pytest.mark.parametrize("number", [0, 2])
async def test_two_answers_at_once_of_which_one_is_a_failure_are_both_told(number: int) -> None:
    async with setting({0: 100, 2: 100}) as it:
        it.cluster.lost, it.offsets.range, it.offsets.failing = {0, 2}, (50, 100), {number}
        it.offsets.gate.clear()
        reader = Reader(it)
        await reader.look(5)
        it.cluster.lost = set()
        it.offsets.gate.set()
        await reader.look(1)
        assert (len(reader.failures), reader.gone) == (1, [])
        await reader.look(1)
        assert (len(reader.failures), reader.gone) == (1, [(0, 50)])


async def test_an_answer_waits_for_its_partition_to_be_wanted() -> None:
    async with setting({0: 100, 2: 100}) as it:
        it.cluster.lost, it.offsets.range = {2}, (50, 100)
        await it.look()
        await it.take(0)
        held, it.held = it.held, it.held[:1]
        assert not any(piece.gone for piece in (await it.look()).values())
        it.held = held
        assert [one.first for one in (await it.look())[2].gone] == [0]


async def test_what_is_raised_after_something_that_was_taken_is_raised_by_the_next_fetch() -> None:
    async with setting({0: 100, 1: 100}) as it:
        it.cluster.refused = {1}
        reader = Reader(it)
        await reader.look(60)
        assert reader.offsets[0] == list(range(100))
        refusals = sum(1 in partitions for partitions, _ in it.cluster.asked)
        assert len(reader.failures) >= refusals - 1 > 10, "none is forgotten"


async def test_a_change_ends_a_fetch_that_waits() -> None:
    async with setting({0: 0}) as it:
        fetching = asyncio.create_task(it.look(wait=600.0))
        while it._polling._waker is None:  # noqa: ASYNC110 - until it waits
            await asyncio.sleep(0)

        it._polling.interrupt()
        with anyio.fail_after(30):
            assert await fetching == {}


# A record that cannot be decoded


@pytest.mark.parametrize(
    "poison",
    [{13}, {10}, {19}, {0, 99}, {13, 14, 17}, set(range(10, 20)), set(range(100))],
    ids=["inside", "first", "last", "ends", "several", "a batch", "all"],
)
@pytest.mark.parametrize("most", [1000, 7])
async def test_a_record_that_cannot_be_decoded_is_named_and_all_others_come(poison: set[int], most: int) -> None:
    async with setting({0: 100}) as it:
        it.cluster.batches, it.cluster.poison, it.gaps.only_notes = 3, {0: poison}, None
        reader = Reader(it)
        await reader.look(400, most)
        assert reader.offsets[0] == [offset for offset in range(100) if offset not in poison]
        assert [one.offset for one in reader.broken] == sorted(poison)
        assert all(NO_NAME in one.raw and BODY in one.raw for one in reader.broken)


async def test_a_batch_whose_checksum_is_right_is_read_once_more_and_not_oftener() -> None:
    async with setting({0: 30}) as it:
        it.cluster.poison, it.gaps.only_notes = {0: {13}}, None
        await Reader(it).look(50)
        assert it.gaps.noted == [10 if bare.POSSIBLE else 13]


async def test_no_more_is_handed_over_than_there_is_room_for_by_then() -> None:
    async with setting({0: 30, 1: 30}) as it:
        it.cluster.poison, it.gaps.only_notes = {0: {4}, 1: {7}}, None
        reader = Reader(it)
        it.offsets.gate.clear()
        await reader.look(15, most=1000)
        it.offsets.gate.set()
        before = {number: len(offsets) for number, offsets in reader.offsets.items()}
        for _ in range(40):
            await reader.look(1, most=3)
            after = {number: len(offsets) for number, offsets in reader.offsets.items()}
            assert sum(after.values()) - sum(before.values()) <= 3
            before = after

        assert reader.offsets == {number: [one for one in range(30) if one != number * 3 + 4] for number in (0, 1)}
        assert sorted(one.offset for one in reader.broken) == [4, 7]


async def test_other_partitions_flow_while_a_batch_is_read_record_by_record() -> None:
    async with setting({0: 100, 1: 100}) as it:
        it.cluster.poison, it.gaps.only_notes = {0: {3}}, None
        it.offsets.gate.clear()
        reader = Reader(it)
        await reader.look(30)
        assert [len(came) for came in reader.offsets.values()] == [0 if bare.POSSIBLE else 3, 100]
        it.offsets.gate.set()
        await reader.look(60)
        assert [len(came) for came in reader.offsets.values()] == [99, 100]


async def test_nothing_is_lost_where_a_batch_cannot_be_read_again_for_a_while() -> None:
    async with setting({0: 100, 1: 100}) as it:
        it.cluster.poison, it.gaps.only_notes, it.offsets.failures = {1: {33}}, None, 3
        reader = Reader(it)
        await reader.look(100)
        assert len(reader.failures) == 3
        assert reader.offsets == {0: list(range(100)), 1: [offset for offset in range(100) if offset != 33]}


async def test_a_damaged_batch_is_read_three_times_before_its_first_offset_is_given_up() -> None:
    async with setting({0: 30}) as it:
        it.cluster.damaged, it.gaps.only_notes = {10}, None
        reader = Reader(it)
        await reader.look(200)
        assert reader.offsets[0] == [*range(10), *range(20, 30)]
        assert [one.offset for one in reader.broken] == list(range(10, 20))
        assert it.gaps.noted == [offset for offset in range(10, 20) for _ in range(3)]


def records_of(data: bytes, at: int = 0, most: int = 1000) -> tuple[list[int], list[int], int]:
    """Offsets that could be read, those that could not, and where reading goes on."""
    found = read(PARTITION, data, at, most, aborted=[], isolation=READ_UNCOMMITTED)
    return [row[OFFSET] for row in found.rows], [one.offset for one in found.broken], found.next_offset


def signed(raw: bytes | bytearray) -> bytes:
    """With the checksum that belongs to it."""
    data = bytearray(raw)
    data[8:12] = (len(data) - 12).to_bytes(4, "big")
    data[CRC:ATTRIBUTES] = calc_crc32c(data[ATTRIBUTES:]).to_bytes(4, "big")
    return bytes(data)


async def test_a_compressed_batch_is_read_record_by_record() -> None:
    raw = bytearray(batch(0, poison={4}))
    raw[ATTRIBUTES + 1] |= 1
    data = signed(raw[:FIRST_RECORD] + gzip_encode(raw[FIRST_RECORD:]))
    assert records_of(data) == ([0, 1, 2, 3, 5, 6, 7, 8, 9], [4], 10)
    assert records_of(data, at=5, most=2) == ([5, 6], [], 7)


async def test_what_cannot_be_unpacked_cannot_be_read() -> None:
    raw = bytearray(batch(0))
    raw[ATTRIBUTES + 1] |= 1
    with pytest.raises(UNREADABLE):
        records_of(signed(raw))


async def test_markers_are_passed_and_no_record_of_theirs_is_broken() -> None:
    assert records_of(batch(0, hidden=True) + batch(10, poison={15})) == (
        [10, 11, 12, 13, 14, 16, 17, 18, 19],
        [15],
        20,
    )


async def test_what_comes_before_a_record_of_which_nobody_knows_where_it_ends_comes() -> None:
    raw = bytearray(batch(0))
    size = (len(raw) - FIRST_RECORD) // RECORDS
    raw[FIRST_RECORD + 4 * size] = 0x7E
    data = signed(raw[: FIRST_RECORD + 5 * size])
    assert records_of(data) == ([0, 1, 2, 3], [], 4)
    with pytest.raises(CorruptRecordException):
        records_of(data, at=4)


async def test_a_batch_that_fails_its_checksum_is_not_read() -> None:
    with pytest.raises(CorruptRecordException):
        records_of(batch(0, damaged=True))


async def test_a_broken_record_counts_as_passed_also_before_the_rest_that_is_lost() -> None:
    raw = bytearray(batch(0, poison={0, 4}))
    raw = raw[: raw.rindex(NO_NAME) + len(NO_NAME) + 1]  # and the header's value, which is empty
    assert records_of(signed(raw)) == ([1, 2, 3], [0, 4], 5)
