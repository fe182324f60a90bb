"""The Kafka of the tests is a real one: every listener takes messages, nodes die and come back with what they had."""

from __future__ import annotations

import asyncio
from typing import Any

import aiokafka
import anyio
import pytest
from aiokafka.errors import KafkaError

from tests.services import kafka_wire
from tests.services.kafka_server import KafkaServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

LISTENERS = [
    ("plain", "PLAIN"),
    ("sasl", "PLAIN"),
    ("sasl", "SCRAM-SHA-256"),
    ("sasl", "SCRAM-SHA-512"),
    ("tls", "PLAIN"),
    ("mtls", "PLAIN"),
    ("sasl-tls", "SCRAM-SHA-512"),
]


async def send(client: dict[str, Any], topic: str, *values: bytes) -> None:
    producer = aiokafka.AIOKafkaProducer(acks="all", **client)
    try:
        await producer.start()
        for value in values:
            await producer.send_and_wait(topic, value)
    finally:
        await producer.stop()


async def read(client: dict[str, Any], topic: str, count: int) -> list[bytes | None]:
    consumer = aiokafka.AIOKafkaConsumer(topic, group_id=f"group-of-{topic}", auto_offset_reset="earliest", **client)
    async with consumer:
        return [(await consumer.getone()).value for _ in range(count)]


@pytest.mark.parametrize(("listener", "mechanism"), LISTENERS)
async def test_a_message_goes_in_and_comes_out_by_every_listener(
    kafka: KafkaServer, listener: str, mechanism: str, anyio_backend_name: str
) -> None:
    client = await anyio.to_thread.run_sync(lambda: kafka.client(listener, mechanism=mechanism))
    topic = await kafka.new_topic("listener")

    async def there_and_back() -> list[bytes | None]:
        await send(client, topic, b"hello")
        return await read(client, topic, 1)

    # In a loop of its own: aiokafka knows asyncio only, and this test runs on trio as well.
    assert await anyio.to_thread.run_sync(asyncio.run, there_and_back()) == [b"hello"]


# Starting a node again takes seconds, and what is asserted has no loop in it.
on_one_loop = pytest.mark.parametrize("anyio_backend", ["asyncio"])


@pytest.mark.parametrize("missing", ["password", "certificate"])
def test_a_listener_refuses_who_does_not_say_who_it_is(kafka: KafkaServer, missing: str) -> None:
    if missing == "password":
        client = {**kafka.client("sasl"), "sasl_plain_password": "wrong"}
    else:
        client = {**kafka.client("tls"), "bootstrap_servers": kafka.address("mtls")}

    with pytest.raises(KafkaError):
        asyncio.run(send(client, "anything", b"hello"))


@on_one_loop
async def test_a_killed_node_comes_back_with_its_data_on_its_port(kafka: KafkaServer) -> None:
    topic = await kafka.new_topic("survives", partitions=2)
    client = kafka.client()
    await anyio.to_thread.run_sync(asyncio.run, send(client, topic, b"before"))
    await kafka.kill()
    with pytest.raises(KafkaError):
        await anyio.to_thread.run_sync(asyncio.run, send(client, topic, b"meanwhile"))

    await kafka.restart()
    assert await anyio.to_thread.run_sync(asyncio.run, read(client, topic, 1)) == [b"before"]


@on_one_loop
async def test_a_cluster_goes_on_while_one_of_three_nodes_is_dead(kafka_cluster: KafkaServer) -> None:
    topic = await kafka_cluster.new_topic("outlives", partitions=3)
    client = kafka_cluster.client()
    await anyio.to_thread.run_sync(asyncio.run, send(client, topic, b"1", b"2", b"3"))
    await kafka_cluster.kill(kafka_cluster.nodes[1])
    await anyio.to_thread.run_sync(asyncio.run, send(client, topic, b"4", b"5", b"6"))
    found = await anyio.to_thread.run_sync(asyncio.run, read(client, topic, 6))
    assert sorted(value for value in found if value) == [b"1", b"2", b"3", b"4", b"5", b"6"]


def test_a_node_that_a_test_has_left_dead_is_back_for_the_next_one(kafka_cluster: KafkaServer) -> None:
    """The one before this has left one dead."""
    for address in kafka_cluster.bootstrap.split(","):
        assert len(kafka_wire.brokers(int(address.rpartition(":")[2]))) == len(kafka_cluster.nodes)


async def test_topics_of_the_same_name_are_not_the_same(kafka: KafkaServer) -> None:
    first, second = await kafka.new_topic("name"), await kafka.new_topic("name", configs={"retention.ms": "1000"})
    assert first != second
    assert first.startswith("name-")
