"""Reading single offsets again: each is found, or it is said why not. asyncio only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any

import anyio
import pytest

pytest.importorskip("aiokafka")

from aiokafka import TopicPartition as KafkaPartition
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.consumer.subscription_state import SubscriptionState

from rustmq_sdk.drivers.kafka.rereading import Rereading
from rustmq_sdk.errors import TransientDriverError
from rustmq_sdk.slots import Fetched
from rustmq_sdk.values import Assignment, TopicPartition
from tests.unit.kafka_fetching import NO_NAME, Cluster

pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])

ONE = Assignment(TopicPartition("quakes", 0), 1)


class Consumer:
    """As much of aiokafka's as rereading asks, around its own fetcher."""

    _coordinator = None

    def __init__(self, cluster: Cluster) -> None:
        self._client = cluster
        self._subscription = SubscriptionState()
        self._fetcher = cluster.fetcher = Fetcher(cluster, self._subscription, auto_offset_reset="none")

    async def start(self) -> None:
        pass

    def assign(self, partitions: Collection[KafkaPartition]) -> None:
        self._subscription.assign_from_user(partitions)

    def seek(self, partition: KafkaPartition, offset: int) -> None:
        self._fetcher.seek_to(partition, offset)

    async def getmany(self, partition: KafkaPartition, *, timeout_ms: int, max_records: int) -> Any:
        return await self._fetcher.fetched_records([partition], timeout_ms / 1000, max_records)

    async def position(self, partition: KafkaPartition) -> int:
        return int(self._subscription.subscription.assignment.state_value(partition).position)

    async def beginning_offsets(self, partitions: Collection[KafkaPartition]) -> dict[KafkaPartition, int]:
        return dict.fromkeys(partitions, self._client.begin)

    async def end_offsets(self, partitions: Collection[KafkaPartition]) -> dict[KafkaPartition, int]:
        return {partition: self._client.ends[partition.partition] for partition in partitions}


class Again:
    """Rereading, and a log of 100 messages.

    Attributes:
        cluster: that has them.
        made: consumers.
    """

    def __init__(self) -> None:
        self.cluster = Cluster({0: 100})
        self.made: list[Consumer] = []
        self.rereading = Rereading(self._make, deadline=30.0)

    def _make(self) -> Any:
        self.made.append(Consumer(self.cluster))
        return self.made[-1]

    async def read(self, *offsets: int) -> Fetched:
        with anyio.fail_after(60):
            return await self.rereading.read(ONE, offsets)


@pytest.fixture
async def again() -> AsyncIterator[Again]:
    it = Again()
    try:
        yield it
    finally:
        await it.rereading.close()


def gone_of(found: Fetched) -> Sequence[tuple[int, str]]:
    return [(gone.first, gone.reason) for gone in found.gone]


@pytest.mark.parametrize("offsets", [(0,), (9, 10), (3, 14, 15, 99)])
async def test_what_is_there_is_found_and_nothing_is_said_to_be_gone(again: Again, offsets: Sequence[int]) -> None:
    found = await again.read(*offsets)
    assert (list(found.offsets), gone_of(found)) == (list(offsets), [])


async def test_what_the_log_does_not_have_is_named_up_to_its_very_end(again: Again) -> None:
    again.cluster.begin, again.cluster.ends[0] = 10, 20
    found = await again.read(5, 15, 20, 25)
    assert list(found.offsets) == [15]
    beyond = "beyond the end of the log"
    assert gone_of(found) == [(5, "retention"), (20, beyond), (25, beyond)]


async def test_what_markers_have_taken_the_place_of_is_named(again: Again) -> None:
    again.cluster.hidden = {10}
    found = await again.read(9, 13, 20)
    assert (list(found.offsets), gone_of(found)) == ([9, 20], [(13, "compacted")])


@pytest.mark.parametrize("poison", [{13}, {12, 15}, {14}], ids=["wanted", "others", "the last"])
async def test_a_record_that_cannot_be_decoded_is_named_and_others_of_its_batch_are_found(
    again: Again, poison: set[int]
) -> None:
    again.cluster.poison = {0: poison}
    wanted = (11, 13, 14, 16)
    found = await again.read(*wanted)
    assert list(found.offsets) == [offset for offset in wanted if offset not in poison]
    assert [one.offset for one in found.broken] == sorted(poison & set(wanted))
    assert all(NO_NAME in one.raw for one in found.broken)
    assert gone_of(found) == []


async def test_what_fails_its_checksum_time_and_again_is_named_and_does_not_end_anything(again: Again) -> None:
    again.cluster.damaged = {10}
    found = await again.read(9, 13, 20)
    assert (list(found.offsets), [one.offset for one in found.broken], gone_of(found)) == ([9, 20], [13], [])


async def test_a_read_without_an_answer_is_made_again_by_another_consumer(again: Again) -> None:
    again.rereading = Rereading(again.rereading._make, deadline=0.01)
    again.cluster.gate.clear()
    with pytest.raises(TransientDriverError):
        await again.read(13)

    again.rereading._deadline = 30.0
    again.cluster.gate.set()
    assert list((await again.read(13)).offsets) == [13]
    assert len(again.made) == 2


async def test_a_read_that_was_cancelled_leaves_its_consumer_to_nobody(again: Again) -> None:
    """aiokafka believes for ever that somebody is fetching, where that was cancelled."""
    again.cluster.gate.clear()
    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(again.read(3))
        while not again.cluster.asked:  # noqa: ASYNC110 - until it is under way
            await asyncio.sleep(0)

        reading.cancel()

    again.cluster.gate.set()
    assert list((await again.read(3)).offsets) == [3]
    assert len(again.made) == 2
