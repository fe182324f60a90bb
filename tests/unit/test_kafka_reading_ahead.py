"""A broker is asked for more before all that it sent is used up, and never for what keeps others waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

pytest.importorskip("aiokafka")

from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.protocol.fetch import FetchResponse_v4
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from rustmq_sdk.drivers.kafka import bare
from rustmq_sdk.drivers.kafka.holdings import Holdings
from rustmq_sdk.drivers.kafka.polling import Polling
from rustmq_sdk.slots import Fetched
from rustmq_sdk.values import Assignment
from rustmq_sdk.values import TopicPartition as Partition

pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])

RECORDS = 10
"""In one answer, of each partition."""


def batch(first: int) -> bytes:
    builder = DefaultRecordBatchBuilder(2, 0, False, -1, -1, -1, 1 << 16)
    for delta in range(RECORDS):
        builder.append(delta, 1000, None, b"body", [])

    raw = bytearray(builder.build())
    raw[:8] = first.to_bytes(8, "big")
    return bytes(raw)


class Cluster:
    """As much of aiokafka's client as its fetcher asks: even partitions are at broker 0, odd ones at broker 1.

    Attributes:
        ends: of the partitions' logs; a request for none that has more is kept, as a broker would.
        stable: the same for who reads only what is committed.
        asked: the partitions of each request, and those of that broker whose records waited meanwhile.
    """

    def __init__(self, ends: dict[int, int], stable: dict[int, int] | None = None) -> None:
        self.ends = ends
        self.stable = stable or ends
        self.asked: list[tuple[set[int], set[int]]] = []
        self.cluster = self
        self.fetcher: Any = None
        self._loop = asyncio.get_running_loop()
        self._metadata_max_age_ms = 300_000

    def leader_for_partition(self, partition: TopicPartition) -> int:
        return int(partition.partition) % 2

    async def send(self, node: int, request: Any) -> Any:
        wanted = {partition: offset for _, of_topic in request.topics for partition, offset, _ in of_topic}
        waiting = {one.partition for one in self.fetcher._records if one.partition % 2 == node}
        self.asked.append((set(wanted), waiting))
        more = {partition: offset for partition, offset in wanted.items() if offset < self.stable[partition]}
        if not more:
            await asyncio.Event().wait()

        return FetchResponse_v4(0, [("quakes", [self._answer(*one) for one in more.items()])])

    def _answer(self, partition: int, offset: int) -> tuple[Any, ...]:
        return partition, 0, self.ends[partition], self.stable[partition], [], batch(offset)


class Setting:
    """A fetcher of aiokafka, and ours above it."""

    def __init__(self, cluster: Cluster, isolation: str) -> None:
        self.cluster = cluster
        self._partitions = [TopicPartition("quakes", number) for number in cluster.ends]
        self._subscription = SubscriptionState()
        self._subscription.assign_from_user(self._partitions)
        for partition in self._partitions:
            self._subscription.seek(partition, 0)

        self._fetcher = cluster.fetcher = Fetcher(
            cluster, self._subscription, isolation_level=isolation, prefetch_backoff=60.0
        )
        self._held = [Assignment(Partition("quakes", number), 1) for number in cluster.ends]
        holdings = Holdings()
        holdings.take(dict.fromkeys(self._held, 0), 1)
        self._polling = Polling(self, holdings, check=lambda: None, on_out_of_range=_never, on_corrupt=_never)  # type: ignore[arg-type]

    async def getmany(self, partition: TopicPartition, *, timeout_ms: int, max_records: int) -> Any:
        return await self._fetcher.fetched_records([partition], timeout_ms, max_records)

    async def take(self, number: int, most: int = 2 * RECORDS) -> list[int]:
        """Offsets of what comes of one partition, and what that causes."""
        wanted = self._held[list(self.cluster.ends).index(number)]
        pieces: Any = await self._polling.fetch([wanted], max_messages=most, max_bytes=1 << 20, max_wait=5.0)
        for _ in range(20):
            await asyncio.sleep(0)

        return [offset for piece in pieces for offset in piece.offsets]

    async def close(self) -> None:
        await self._fetcher.close()


def _never(*_: Any) -> Fetched | None:
    raise AssertionError("nothing is wrong with the log")


@asynccontextmanager
async def setting(
    ends: dict[int, int], stable: dict[int, int] | None = None, isolation: str = "read_uncommitted"
) -> AsyncIterator[Setting]:
    it = Setting(Cluster(ends, stable), isolation)
    try:
        yield it
    finally:
        await it.close()


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
