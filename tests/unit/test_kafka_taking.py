"""What comes out of aiokafka, by the batch and by ``getmany()``."""

from __future__ import annotations

import pytest

pytest.importorskip("aiokafka")

from rustmq_sdk.drivers.kafka import bare
from tests.unit.kafka_fetching import BODY, RECORDS, Setting, setting

pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])


@pytest.fixture(params=[True, False], ids=["by the batch", "getmany"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bare, "POSSIBLE", request.param)


async def until_corrupt(it: Setting) -> list[int]:
    found: list[int] = []
    while not it.corrupt:
        found += await it.take(0, 5 * RECORDS)

    return found


async def test_what_comes_before_a_damaged_batch_comes() -> None:
    async with setting({0: 100}) as it:
        it.cluster.batches, it.cluster.damaged = 5, {2 * RECORDS}
        assert await until_corrupt(it) == list(range(2 * RECORDS))
        assert it.corrupt == [2 * RECORDS]


async def test_a_damaged_batch_at_the_position_is_told_at_once() -> None:
    async with setting({0: 100}) as it:
        it.cluster.batches, it.cluster.damaged = 5, {0}
        assert await until_corrupt(it) == []
        assert it.corrupt == [0]


async def test_a_damaged_batch_is_told_of_where_it_is_and_not_where_the_markers_before_it_begin() -> None:
    async with setting({0: 100}) as it:
        it.cluster.batches, it.cluster.damaged, it.cluster.hidden = 5, {2 * RECORDS}, {0, RECORDS}
        assert await until_corrupt(it) == []
        # getmany() drops what it has passed.
        assert it.corrupt == [2 * RECORDS if bare.POSSIBLE else 0]


async def test_what_comes_before_a_damaged_batch_is_not_asked_for_once_for_each_message() -> None:
    async with setting({0: 100}) as it:
        it.cluster.batches, it.cluster.damaged = 5, {2 * RECORDS}
        await until_corrupt(it)
        assert len(it.cluster.asked) <= 3


async def test_nothing_is_passed_over_where_the_damage_is_gone_when_read_again() -> None:
    async with setting({0: 100}) as it:
        it.cluster.batches, it.cluster.damaged = 5, {2 * RECORDS}
        found = await until_corrupt(it)
        it.cluster.damaged = set()
        while len(found) < 100:
            found += await it.take(0, 5 * RECORDS)

        assert found == list(range(100))


async def test_more_is_taken_at_once_again_after_the_damage() -> None:
    async with setting({0: 1000}) as it:
        it.cluster.batches, it.cluster.damaged = 5, {2 * RECORDS}
        found = await until_corrupt(it)
        it.cluster.damaged = set()
        sizes = []
        while len(found) < 10 * RECORDS:
            sizes.append(len(await it.take(0, 5 * RECORDS)))
            found += range(len(found), len(found) + sizes[-1])

        assert sizes[-1] > RECORDS


async def test_no_more_is_taken_than_asked_for() -> None:
    async with setting({0: 100}) as it:
        it.cluster.batches = 5
        assert [await it.take(0, most) for most in (3, 8, 1)] == [list(range(3)), list(range(3, 11)), [11]]


async def test_no_more_bytes_are_taken_than_asked_for() -> None:
    async with setting({0: 100}) as it:
        it.cluster.batches = 5
        rooms = (3 * len(BODY), 13 * len(BODY), 2 * len(BODY) + 1)
        found = [await it.take(0, 1000, room) for room in rooms]
        assert found == [list(range(3)), list(range(3, 16)), [16, 17]]


async def test_one_message_comes_though_it_is_larger_than_what_was_asked_for() -> None:
    async with setting({0: 100}) as it:
        assert [await it.take(0, 1000, 1) for _ in range(3)] == [[0], [1], [2]]


async def test_all_partitions_share_the_bytes_and_one_message_goes_beyond_at_most() -> None:
    async with setting({0: 100, 1: 100, 3: 100}) as it:
        it.cluster.batches = 5
        await it.take(0, 1)
        await it.take(1, 1)
        for bodies in (13, 60, 1):
            taken = await it.take_of_all(bodies * len(BODY) + 1)
            assert bodies <= sum(map(len, taken)) <= bodies + 1
