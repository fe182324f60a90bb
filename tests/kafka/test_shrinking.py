"""A log that loses messages under its reader: said with the offsets, and by policy the end of reading or not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.admin import RecordsToDelete

import rustmq_sdk
from rustmq_sdk.values import TopicPartition
from tests.kafka.reading import SOON, Events, consuming, on_asyncio, send_numbers, settle, until
from tests.services.kafka_server import KafkaServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


async def by_hand(kafka: KafkaServer, work: Callable[[Any], Awaitable[Any]]) -> None:
    """What a tool does to the cluster; aiokafka's knows asyncio only."""

    async def do() -> None:
        async with kafka.admin() as admin:
            await work(admin)

    await anyio.to_thread.run_sync(asyncio.run, do())


async def delete_before(kafka: KafkaServer, topic: str, offset: int) -> None:
    """As retention does it."""
    await by_hand(
        kafka,
        lambda admin: admin.delete_records({KafkaPartition(topic, 0): RecordsToDelete(before_offset=offset)}),
    )


async def overtaken(kafka: KafkaServer) -> tuple[str, str]:
    """A topic of which a group has read 10 of 100 messages, and the log has the last 40."""
    topic = await kafka.new_topic("overtaken")
    url = f"kafka://{kafka.bootstrap}"
    await send_numbers(url, topic, range(100))
    async with consuming(url, topic, group=topic, prefetch=5, max_in_flight=10) as consumer:
        assert await settle(consumer, 10) == list(range(10))
        await consumer.commit()

    await delete_before(kafka, topic, 60)
    return url, topic


async def test_retention_that_overtakes_a_reader_stops_its_partition_and_says_what_is_lost(kafka: KafkaServer) -> None:
    url, topic = await overtaken(kafka)
    events = Events()
    async with consuming(url, topic, group=topic, observers=[events]) as consumer:
        with anyio.fail_after(SOON), pytest.raises(rustmq_sdk.PartitionStopped, match="10") as caught:
            await consumer.receive()

        assert (caught.value.partition, caught.value.offset) == (0, 10)
        assert [(gone.first, gone.end) for gone in events.gone] == [(10, 60)]
        assert not consumer.health().ok
        assert await consumer.committed_offset(topic, 0) == 10

        consumer.resume_partitions([(topic, 0)])
        assert await settle(consumer, 40) == list(range(60, 100))
        await consumer.commit()
        assert consumer.statistics().lost == 50


async def test_retention_that_overtakes_a_reader_is_said_where_it_may_go_on(kafka: KafkaServer) -> None:
    url, topic = await overtaken(kafka)
    events, letters = Events(), list[Any]()

    async def keep(found: Any) -> None:
        letters.extend(found)

    async with consuming(
        url, topic, group=topic, observers=[events], on_lost="dead_letter", dead_letters=keep
    ) as consumer:
        assert await settle(consumer, 40) == list(range(60, 100))
        await consumer.commit()

    assert [(gone.first, gone.end) for gone in events.gone] == [(10, 60)]
    assert len(letters) == 1


async def test_retention_that_overtakes_a_running_reader_is_said_as_well(kafka: KafkaServer) -> None:
    topic = await kafka.new_topic("running")
    url = f"kafka://{kafka.bootstrap}?max_partition_fetch_bytes=500"
    await send_numbers(url, topic, range(20))
    events = Events()
    async with consuming(url, topic, group=topic, observers=[events], prefetch=5, max_in_flight=10) as consumer:
        await settle(consumer, 5)
        # Beyond what may be on its way: several fetches of 500 bytes.
        await send_numbers(url, topic, range(20, 200))
        await delete_before(kafka, topic, 150)
        with anyio.fail_after(SOON), pytest.raises(rustmq_sdk.PartitionStopped):
            await settle(consumer, 200)

        (gone,) = events.gone
        assert gone.end == 150
        # Nothing between what was settled and what is named as lost: no message is passed in silence.
        assert consumer.statistics().partitions[TopicPartition(topic, 0)].watermark == gone.first


async def test_a_topic_that_was_made_again_is_said(kafka: KafkaServer) -> None:
    topic = await kafka.new_topic("again")
    url = f"kafka://{kafka.bootstrap}"
    await send_numbers(url, topic, range(30))
    async with consuming(url, topic, group=topic) as consumer:
        await settle(consumer, 30)
        await consumer.commit()

    async with rustmq_sdk.Client(url) as client:
        await client.delete_topic(topic)
        await client.create_topic(topic)

    await send_numbers(url, topic, range(100, 105))
    events = Events()
    async with consuming(url, topic, group=topic, observers=[events], start="earliest") as consumer:
        # With the topic its groups' positions have gone, or have not yet: either all is read, or it is said.
        with anyio.fail_after(SOON):
            try:
                first = await consumer.receive()
            except rustmq_sdk.PartitionStopped:
                assert [(gone.first, gone.restart) for gone in events.gone] == [(30, 0)]
                consumer.resume_partitions([(topic, 0)])
                first = await consumer.receive()

        assert first.text() == "100"


@on_asyncio
async def test_a_topic_that_is_made_again_under_a_running_reader_is_said(
    kafka: KafkaServer, caplog: pytest.LogCaptureFixture
) -> None:
    topic = await kafka.new_topic("under")
    url = f"kafka://{kafka.bootstrap}"
    await send_numbers(url, topic, range(30))
    events = Events()
    async with consuming(url, topic, group=topic, observers=[events]) as consumer:
        await settle(consumer, 30)
        await consumer.commit()
        async with rustmq_sdk.Client(url) as client:
            await client.delete_topic(topic)
            await client.create_topic(topic)

        await send_numbers(url, topic, range(100, 105))
        # What happens depends on when the brokers are asked: they say that it is gone, or only that it is shorter. Who
        # joins the group anew in between sees neither, and that its position is gone.
        with anyio.fail_after(SOON):
            try:
                first = await consumer.receive()
            except rustmq_sdk.PartitionStopped:
                assert [(gone.first, gone.restart) for gone in events.gone] == [(30, 0)]
                consumer.resume_partitions([(topic, 0)])
                first = await consumer.receive()
            else:
                gone = ([], [TopicPartition(topic, 0)], "topics_changed") in events.rebalances
                assert gone or "its committed position is gone" in caplog.text

        assert first.text() == "100"
        await until(lambda: consumer.health().ok)


@pytest.mark.parametrize(("group", "anyio_backend"), [(True, "trio"), (False, "asyncio")], ids=["group", "no-group"])
async def test_a_topic_that_is_deleted_under_its_reader_is_named(kafka: KafkaServer, group: bool) -> None:
    topic = await kafka.new_topic("deleted")
    url = f"kafka://{kafka.bootstrap}?metadata_max_age=1"
    events = Events()
    async with consuming(url, topic, group=topic if group else None, observers=[events]) as consumer:
        await until(lambda: consumer.assigned_partitions)
        async with rustmq_sdk.Client(url) as client:
            await client.delete_topic(topic)

        # One comes from the fetches, the other from the metadata: in either order.
        await until(lambda: "unknown_topic" in {reason.code for reason in consumer.health().reasons})
        assert not consumer.health().ok
        await until(lambda: ([], [TopicPartition(topic, 0)], "topics_changed") in events.rebalances)


async def test_a_position_beyond_the_end_of_the_log_is_said(kafka: KafkaServer) -> None:
    """As it is when the topic was made again, and its groups' positions were kept or copied."""
    topic = await kafka.new_topic("beyond")
    url = f"kafka://{kafka.bootstrap}"
    await send_numbers(url, topic, range(5))

    async def copy() -> None:
        other = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, group_id=topic, enable_auto_commit=False)
        await other.start()
        try:
            other.assign([KafkaPartition(topic, 0)])
            await other.commit({KafkaPartition(topic, 0): 30})
        finally:
            await other.stop()

    await anyio.to_thread.run_sync(asyncio.run, copy())
    events = Events()
    async with consuming(url, topic, group=topic, observers=[events]) as consumer:
        with anyio.fail_after(SOON), pytest.raises(rustmq_sdk.PartitionStopped, match="30"):
            await consumer.receive()

        assert [(gone.first, gone.end, gone.restart) for gone in events.gone] == [(30, 30, 0)]
        consumer.resume_partitions([(topic, 0)])
        assert await settle(consumer, 5) == list(range(5))
        await consumer.commit()
        assert await consumer.committed_offset(topic, 0) == 5
