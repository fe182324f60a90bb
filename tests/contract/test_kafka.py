"""Kafka keeps the promises of the slots, on a real broker and on both loops."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest

from rustmq_sdk.drivers import kafka as kafka_driver
from rustmq_sdk.letters import PREFIX
from rustmq_sdk.slots import Driver
from rustmq_sdk.testing.contracts import AdminContract, DeadLetterQueueContract, SinkContract
from rustmq_sdk.testing.contracts.subscriber import Received
from rustmq_sdk.values import DeadLetter, TopicPartition
from tests.services.kafka_server import KafkaServer

pytestmark = pytest.mark.slow


class OnKafka:
    """Where the suites get their driver."""

    creates_topics = False

    @pytest.fixture
    async def driver(self, kafka: KafkaServer) -> AsyncIterator[Driver]:
        async with kafka_driver.open(f"kafka://{kafka.bootstrap}") as driver:
            yield driver


class TestSink(OnKafka, SinkContract):
    pass


class TestSinkThatMakesTopics(SinkContract):
    @pytest.fixture
    async def driver(self, kafka: KafkaServer) -> AsyncIterator[Driver]:
        async with kafka_driver.open(f"kafka://{kafka.bootstrap}?create=true") as driver:
            yield driver


class TestAdmin(OnKafka, AdminContract):
    pass


class TestDeadLetters(DeadLetterQueueContract):
    creates_topics = False

    @pytest.fixture
    async def driver(self, kafka: KafkaServer) -> AsyncIterator[Driver]:
        async with kafka_driver.open(
            f"kafka://{kafka.bootstrap}?create=true&dead_letter_headers=spring,rustmq"
        ) as driver:
            yield driver

    async def stored(self, driver: Driver, topic: str) -> Sequence[DeadLetter]:
        tp = TopicPartition(topic, 0)
        async with self.log_member(driver, topic, None) as member:
            await member.owns([tp])
            await member.collect((await member.subscription.end_offsets([tp]))[tp])
            return [as_letter(record) for record in member.received]


def as_letter(record: Received) -> DeadLetter:
    """The letter that a message of a dead-letter topic stands for."""
    about = {
        name.removeprefix(PREFIX): value.decode() for name, value in record.headers if name.startswith(PREFIX) and value
    }
    own = tuple(header for header in record.headers if not header[0].startswith((PREFIX, "kafka_dlt-")))
    return DeadLetter(
        id=about["id"],
        payload=record.payload,
        key=record.key,
        headers=own,
        timestamp=int(about["timestamp"]),
        tp=TopicPartition(about["topic"], int(about["partition"])),
        offset=int(about["offset"]) if "offset" in about else None,
        group=about.get("group"),
        reason=about["reason"],
        exception_type=about["exception-type"],
        exception_message=about["exception-message"],
        stack=about["stack"],
        attempts=int(about["attempts"]),
        first_failure=int(about["first-failure"]),
        last_failure=int(about["last-failure"]),
    )
