"""A broker is asked for more before all that it sent is used up, and never for what keeps others waiting."""

from __future__ import annotations

import pytest

pytest.importorskip("aiokafka")

from rustmq_sdk.drivers.kafka import bare
from tests.unit.kafka_fetching import RECORDS, setting

pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])


@pytest.fixture(params=[True, False], ids=["by the batch", "getmany"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bare, "POSSIBLE", request.param)


async def test_more_is_asked_for_while_other_records_wait() -> None:
    async with setting({0: 100, 2: 100}) as it:
        assert await it.take(0) == list(range(10))
        assert it.cluster.asked == [({0, 2}, set()), ({0}, {2})]
        assert await it.take(0) == list(range(10, 20))
        assert await it.take(2) == list(range(10))


async def test_a_partition_that_has_no_more_holds_up_nobody() -> None:
    async with setting({0: RECORDS, 2: 100}) as it:
        await it.take(0)
        assert it.cluster.asked == [({0, 2}, set())]
        await it.take(2)
        assert it.cluster.asked[1:] == [({0, 2}, set())]
        assert await it.take(2) == list(range(10, 20))


async def test_a_partition_that_was_read_to_its_end_is_asked_for_at_once_again() -> None:
    async with setting({0: RECORDS}) as it:
        await it.take(0)
        assert it.cluster.asked == [({0}, set())] * 2


async def test_a_broker_that_is_being_asked_is_asked_for_the_rest_after_that() -> None:
    async with setting({0: 100, 2: 100}) as it:
        assert await it.take(0, 1) == [0]
        it.cluster.gate.clear()
        await it.take(0)
        assert it.cluster.asked[1:] == [({0}, {2})]
        await it.take(2)
        it.cluster.gate.set()
        await it.take(0, 1)
        assert it.cluster.asked[2:] == [({2}, {0})]


async def test_what_is_not_committed_yet_counts_as_not_there() -> None:
    ends, stable = {0: 100, 2: 100}, {0: RECORDS, 2: 100}
    async with setting(ends, stable, isolation="read_committed") as it:
        await it.take(0)
        assert it.cluster.asked == [({0, 2}, set())]


async def test_nobody_is_asked_while_some_of_the_partition_is_left() -> None:
    async with setting({0: 100, 2: 100}) as it:
        await it.take(0, RECORDS - 1)
        assert it.cluster.asked == [({0, 2}, set())]


async def test_the_records_of_one_broker_keep_waiting_those_of_another() -> None:
    async with setting({0: 100, 1: RECORDS, 2: 100, 3: 100}) as it:
        await it.take(1)
        await it.take(0)
        asked = sorted(sorted(partitions) for partitions, _ in it.cluster.asked)
        assert asked == [[0], [0, 2], [1, 3]]


async def test_with_many_partitions_most_are_used_up_first() -> None:
    partitions = range(0, 40, 2)
    async with setting(dict.fromkeys(partitions, 100)) as it:
        for turn, number in enumerate(partitions):
            await it.take(number)
            waiting = len(partitions) - turn - 1
            if len(it.cluster.asked) > 1:
                break

        assert it.cluster.asked[1][1] == set(list(partitions)[-16:])
        assert waiting == 16
