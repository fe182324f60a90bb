"""Brokers that are killed under running consumers and producers, and clusters that lose a node."""

from __future__ import annotations

from contextlib import AsyncExitStack

import anyio
import pytest

import rustmq_sdk
from tests.kafka.awake import Awake
from tests.kafka.reading import consuming, on_asyncio, on_trio, settle, until, until_committed
from tests.services import kafka_wire
from tests.services.kafka_server import KafkaServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


class Load:
    """A producer that sends numbers one after the other, and tells which of them are stored."""

    def __init__(self, url: str, topic: str) -> None:
        self._url = url
        self._topic = topic
        self.stored: list[int] = []
        self.failed: list[str] = []

    async def run(self) -> None:
        # Longer than any restart takes.
        async with rustmq_sdk.Client(self._url) as client, client.producer(send_timeout=180.0) as producer:
            number = 0
            while True:
                try:
                    await producer.send(self._topic, str(number), key=str(number))
                except rustmq_sdk.RustMQError as error:
                    self.failed.append(str(error))
                else:
                    self.stored.append(number)

                number += 1
                await anyio.sleep(0.01)


async def keep_up(consumer: rustmq_sdk.Consumer, seen: set[int]) -> None:
    async for message in consumer:
        seen.add(int(message.text()))
        await message.ack()


@on_trio
async def test_nothing_is_lost_when_the_coordinator_is_killed_and_comes_back(kafka: KafkaServer) -> None:
    """And who closes meanwhile is gone inside the deadline: 30 % of it for the last commit, 10 % for leaving."""
    topic = await kafka.new_topic("killed", partitions=3)
    url = f"kafka://{kafka.bootstrap}"
    seen, load = set[int](), Load(url, topic)
    async with (
        AsyncExitStack() as meanwhile,
        consuming(url, topic, group=topic, commit_timeout=1.0, lease=3.0, close_timeout=2.5) as consumer,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(keep_up, consumer, seen)
        async with anyio.create_task_group() as sending:
            sending.start_soon(load.run)
            await until(lambda: len(seen) > 50)
            closes = await meanwhile.enter_async_context(
                consuming(url, topic, group=f"{topic}-closes", close_timeout=4.0, commit_interval=60.0)
            )
            await settle(closes, 20)
            await kafka.kill()
            with Awake() as clock:
                await meanwhile.aclose()

            assert clock.seconds < 2.5
            await until(lambda: any(reason.code == "circuit_open" for reason in consumer.health().reasons))
            assert not consumer.health().ok
            before = len(load.stored)
            await kafka.restart()
            await until(lambda: len(load.stored) > before + 50)
            sending.cancel_scope.cancel()

        await until(lambda: seen >= set(load.stored))
        await until_committed(consumer)
        await until(lambda: set(consumer.statistics().circuits.values()) == {"closed"})
        assert sum((await consumer.get_lag()).values()) == 0
        await until(lambda: consumer.health().ok)
        tasks.cancel_scope.cancel()

    assert load.failed == [], "the producer waits, and sends"


@on_asyncio
async def test_a_cluster_of_three_loses_the_coordinator_and_the_group_goes_on(kafka_cluster: KafkaServer) -> None:
    topic = await kafka_cluster.new_topic("three", partitions=3)
    url = f"kafka://{kafka_cluster.bootstrap}"
    seen, load = set[int](), Load(url, topic)
    async with (
        consuming(url, topic, group=topic, commit_timeout=1.0, lease=3.0, close_timeout=2.5) as consumer,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(keep_up, consumer, seen)
        async with anyio.create_task_group() as sending:
            sending.start_soon(load.run)
            await until(lambda: len(seen) > 50)
            await until_committed(consumer)
            port = int(kafka_cluster.bootstrap.rpartition(":")[2])
            number = await anyio.to_thread.run_sync(kafka_wire.coordinator, port, topic)
            assert number is not None
            await kafka_cluster.kill(kafka_cluster.nodes[number - 1])
            before = len(load.stored)
            await until(lambda: len(load.stored) > before + 100)
            sending.cancel_scope.cancel()

        await until(lambda: seen >= set(load.stored))
        await until_committed(consumer)
        tasks.cancel_scope.cancel()

    assert load.failed == []
