"""Kafka keeps the promises of a log on a real broker: in the loop of asyncio, and on a thread for trio."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from rustmq_sdk.drivers import kafka as kafka_driver
from rustmq_sdk.slots import Driver
from rustmq_sdk.testing.contracts import LogSourceContract
from rustmq_sdk.testing.contracts.base import Contract
from rustmq_sdk.testing.contracts.log_reading import LogReadingContract
from rustmq_sdk.values import TopicPartition
from tests.services.kafka_server import KafkaServer

pytestmark = pytest.mark.slow


BRISK = "fetch_max_wait=0.1"
"""What is assigned anew is fetched when the fetch before is over, which the broker keeps for so long."""


def by_hand(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """What a tool would do to the cluster: on a loop of its own, while everybody else waits."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(work())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


class OnKafka(Contract):
    """Where the suites get their driver."""

    creates_topics = False
    reads_ahead = True
    lease = 6.0
    patience = 30.0
    options = ""

    @pytest.fixture
    async def driver(self, kafka: KafkaServer) -> AsyncIterator[Driver]:
        self.bootstrap = kafka.bootstrap
        async with kafka_driver.open(f"kafka://{kafka.bootstrap}?{BRISK}{self.options}") as driver:
            yield driver

    def truncate(self, driver: Driver, tp: TopicPartition, before: int) -> None:
        async def delete() -> None:
            admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
            await admin.start()
            try:
                await admin.delete_records({KafkaPartition(*tp): RecordsToDelete(before_offset=before)})
            finally:
                await admin.close()

        by_hand(delete)


class TestLog(OnKafka, LogSourceContract):
    pass


class TestOnItsOwnThread(OnKafka, LogSourceContract):
    """What trio always does, on asyncio."""

    options = "&thread=true"

    @pytest.fixture(scope="class")
    @classmethod
    def anyio_backend(cls) -> str:
        return "asyncio"


class TestReadCommitted(OnKafka, LogReadingContract):
    options = "&isolation=read_committed"

    def leave_a_gap(self, driver: Driver, tp: TopicPartition) -> None:
        async def abort() -> None:
            producer = AIOKafkaProducer(bootstrap_servers=self.bootstrap, transactional_id=f"gap-{tp.topic}")
            await producer.start()
            try:
                # A transaction leaves a marker, which is a record that no reader sees; this one nothing else.
                async with producer.transaction():
                    await producer.send_and_wait(tp.topic, b"aborted", partition=tp.partition)
                    raise LookupError  # noqa: TRY301  # that is how it is aborted
            except LookupError:
                pass
            finally:
                await producer.stop()

        by_hand(abort)
