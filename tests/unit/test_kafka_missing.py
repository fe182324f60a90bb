"""What cannot be read yet is named, and warned of once for each time that it goes missing. asyncio only."""

from __future__ import annotations

import logging
from typing import Any

import pytest

pytest.importorskip("aiokafka")

from aiokafka import TopicPartition as KafkaPartition

from rustmq_sdk.drivers.kafka.holdings import Holdings
from rustmq_sdk.drivers.kafka.missing import MissingTopics
from rustmq_sdk.drivers.kafka.topics import read_topics


class Consumer:
    """As much of aiokafka's as is asked; ``there`` are the numbers of partitions of each topic."""

    def __init__(self) -> None:
        self.there: dict[str, set[int]] = {"orders": {0, 1}}

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
