"""What cannot be read yet is named, and warned of once for each time that it goes missing. asyncio only."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import anyio
import pytest

pytest.importorskip("aiokafka")

from aiokafka import TopicPartition as KafkaPartition

from rustmq_sdk.drivers.kafka import missing as module
from rustmq_sdk.drivers.kafka.holdings import Holdings
from rustmq_sdk.drivers.kafka.missing import MissingTopics
from rustmq_sdk.drivers.kafka.topics import read_topics
from rustmq_sdk.values import Assignment, TopicPartition


class Consumer:
    """As much of aiokafka's as is asked.

    Attributes:
        there: the numbers of partitions of each topic.
        leaders: of the partitions of all.
        looks: how often metadata were asked for.
    """

    def __init__(self) -> None:
        self.there: dict[str, set[int]] = {"orders": {0, 1}}
        self.leaders: dict[int, int | None] = {0: 1, 1: 2}
        self.looks = 0
        self._client = self.cluster = self

    def leader_for_partition(self, partition: KafkaPartition) -> int | None:
        return self.leaders[partition.partition]

    async def force_metadata_update(self) -> None:
        self.looks += 1

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        return self.there.get(topic)


@pytest.fixture
def consumer() -> Any:
    return Consumer()


def test_each_time_that_a_topic_goes_missing_is_warned_of_once(consumer: Any, caplog: pytest.LogCaptureFixture) -> None:
    missing = MissingTopics(consumer, read_topics(["orders"]), Holdings(), lambda: ())
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            consumer.there = {}
            for _ in range(3):
                missing._tell()

            consumer.there = {"orders": {0}}
            for _ in range(3):
                missing._tell()

    assert [record.getMessage() for record in caplog.records] == [
        "topic 'orders' does not exist; waiting until somebody creates it"
    ] * 2


def test_partitions_without_a_leader_are_named_until_they_have_one(consumer: Any) -> None:
    leaderless = [KafkaPartition("orders", 1)]
    missing = MissingTopics(consumer, read_topics(["orders"]), Holdings(), lambda: leaderless)
    ((name, text),) = missing.reasons.items()
    assert name == "orders[1]"
    assert "no broker that can be reached leads orders[1]" in text
    leaderless.clear()
    assert missing.reasons == {}


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("leader", [None, -1])
async def test_a_partition_that_loses_its_leader_for_good_is_named(
    consumer: Any, leader: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.001)
    holdings = Holdings()
    holdings.take({Assignment(TopicPartition("orders", number), 1): 0 for number in (0, 1)}, 1)
    missing = MissingTopics(consumer, read_topics(["orders"]), holdings, lambda: ())
    looking = asyncio.create_task(missing.look())
    consumer.leaders[1] = leader
    with anyio.fail_after(30):
        while not consumer.looks:  # noqa: ASYNC110 - which is at the first look
            await asyncio.sleep(0)

        assert missing.reasons == {}, "it may be an election"
        while "orders[1]" not in missing.reasons:  # noqa: ASYNC110
            await asyncio.sleep(0)

        assert list(missing.reasons) == ["orders[1]"]
        consumer.leaders[1] = 1
        while missing.reasons:  # noqa: ASYNC110
            await asyncio.sleep(0)

    looking.cancel()
    await asyncio.wait([looking])
