"""Kafka keeps the promises of the slots, on a real broker and on both loops."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from rustmq_sdk.drivers import kafka as kafka_driver
from rustmq_sdk.slots import Driver
from rustmq_sdk.testing.contracts import AdminContract, DeadLetterQueueContract, SinkContract
from rustmq_sdk.testing.contracts.subscriber import Received
from rustmq_sdk.values import TopicPartition
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
