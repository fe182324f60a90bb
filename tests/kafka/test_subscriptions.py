"""What a consumer may be subscribed to: topics that grow, patterns, partitions by hand, static members, odd logs."""

from __future__ import annotations

import asyncio
import secrets

import anyio
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import NewPartitions

import rustmq_sdk
from rustmq_sdk.drivers.kafka import manual
from rustmq_sdk.values import TopicPartition
from tests.kafka.reading import AT_ONCE, SOON, Events, consuming, on_asyncio, on_trio, send_numbers, settle, until
from tests.services.kafka_server import KafkaServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


async def test_a_pattern_picks_up_a_topic_that_is_made_later(kafka: KafkaServer) -> None:
    first = await kafka.new_topic("pattern")
    url = f"kafka://{kafka.bootstrap}"
    async with consuming(f"{url}?metadata_max_age=1", f"^{first}.*", group=first) as consumer:
        await until(lambda: consumer.assigned_partitions == {TopicPartition(first, 0)})
        async with rustmq_sdk.Client(url) as client:
            await client.create_topic(f"{first}-later")

        await send_numbers(url, f"{first}-later", [1])
        assert await settle(consumer, 1) == [1]
        assert consumer.assigned_partitions == {TopicPartition(first, 0), TopicPartition(f"{first}-later", 0)}


@pytest.mark.parametrize(("group", "anyio_backend"), [(True, "asyncio"), (False, "trio")], ids=["group", "no-group"])
async def test_a_pattern_without_any_match_waits_for_one(kafka: KafkaServer, group: bool) -> None:
    name = f"none-{secrets.token_hex(4)}"
    url = f"kafka://{kafka.bootstrap}?metadata_max_age=1"
    async with consuming(url, f"^{name}.*", group=name if group else None) as consumer:
        await until(lambda: "unknown_topic" in {reason.code for reason in consumer.health().reasons})
        assert not consumer.health().ok
        with pytest.raises(TimeoutError, match=f"no topic matches '\\^{name}"):
            await consumer.receive(timeout=0.1)

        async with rustmq_sdk.Client(url) as client:
            for number, later in enumerate(("later", "later-still")):
                await client.create_topic(f"{name}-{later}")
                await send_numbers(url, f"{name}-{later}", [number])
                assert await settle(consumer, 1) == [number]

        await until(lambda: consumer.health().ok)


@on_asyncio
async def test_a_pattern_without_a_group_begins_at_once(kafka: KafkaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    topic = await kafka.new_topic("at-once")
    monkeypatch.setattr(manual, "LOOK_SECONDS", 60)
    async with consuming(f"kafka://{kafka.bootstrap}", f"^{topic}$") as consumer:
        await until(lambda: consumer.assigned_partitions == {TopicPartition(topic, 0)}, within=AT_ONCE)


@pytest.mark.parametrize(("group", "anyio_backend"), [(True, "asyncio"), (False, "trio")], ids=["group", "no-group"])
async def test_a_partition_that_does_not_exist_is_named(kafka: KafkaServer, group: bool) -> None:
    topic = await kafka.new_topic("few", partitions=3)
    url = f"kafka://{kafka.bootstrap}"
    async with consuming(url, f"{topic}[9]", group=topic if group else None) as consumer:
        await until(lambda: [each.code for each in consumer.health().reasons] == ["unknown_topic", "no_partitions"])
        assert not consumer.health().ok
        with pytest.raises(TimeoutError, match=f"topic '{topic}' has partitions 0 to 2"):
            await consumer.receive(timeout=0.1)


async def test_partitions_are_assigned_by_hand_and_committed(kafka: KafkaServer) -> None:
    topic = await kafka.new_topic("by-hand", partitions=3)
    url = f"kafka://{kafka.bootstrap}"
    for partition in range(3):
        await send_numbers(url, topic, range(10 * partition, 10 * partition + 3), partition=partition)

    chosen = f"{topic}[0]", f"{topic}[2]"
    async with consuming(url, *chosen, group=topic) as consumer:
        assert sorted(await settle(consumer, 6)) == [0, 1, 2, 20, 21, 22]
        await consumer.commit()
        assert consumer.assigned_partitions == {TopicPartition(topic, 0), TopicPartition(topic, 2)}

    await send_numbers(url, topic, [23], partition=2)
    async with consuming(url, *chosen, group=topic) as consumer:
        assert await settle(consumer, 1) == [23]


@pytest.mark.parametrize(("group", "anyio_backend"), [(True, "asyncio"), (False, "trio")], ids=["group", "no-group"])
async def test_partitions_that_are_added_are_read_as_well(kafka: KafkaServer, group: bool) -> None:
    topic = await kafka.new_topic("grows")
    url = f"kafka://{kafka.bootstrap}?metadata_max_age=1"
    await send_numbers(url, topic, range(10))
    events = Events()
    async with consuming(url, topic, group=topic if group else None, observers=[events]) as consumer:
        assert len(await settle(consumer, 10)) == 10

        async def grow() -> None:
            async with kafka.admin() as admin:
                await admin.create_partitions({topic: NewPartitions(3)})

        await anyio.to_thread.run_sync(asyncio.run, grow())
        await until(lambda: len(consumer.assigned_partitions) == 3)
        for partition in range(1, 3):
            await send_numbers(url, topic, [partition], partition=partition)

        # Of the first partition nothing comes again.
        assert sorted(await settle(consumer, 2)) == [1, 2]


@on_trio
async def test_a_compacted_topic_has_gaps_and_the_position_passes_them(kafka: KafkaServer) -> None:
    """Every segment but the last is cleaned, soon; that one begins when the one before is 50 ms old."""
    configs = {
        "cleanup.policy": "compact",
        "segment.ms": "50",
        "min.cleanable.dirty.ratio": "0.001",
        "max.compaction.lag.ms": "50",
    }
    topic = await kafka.new_topic("compacted", configs=configs)
    url = f"kafka://{kafka.bootstrap}"
    async with rustmq_sdk.Client(url) as client, client.producer() as producer:
        for number in range(30):
            await producer.send(topic, str(number), key=str(number % 3))
            await anyio.sleep(0.02)

        with anyio.fail_after(120):
            while await begins_with(url, topic, "0"):
                # The segment before it is the last one no more.
                await producer.send(topic, "30", key="again")
                await anyio.sleep(0.2)

    # More may be cleaned while it is read; the last message of each key stays.
    async with consuming(url, topic, group=topic) as consumer:
        numbers = await settle(consumer, 1)
        while numbers[-1] < 29 or sum((await consumer.get_lag()).values()) > 0:
            numbers += await settle(consumer, 1)

        assert numbers == sorted(numbers)
        assert {27, 28, 29} <= set(numbers) < set(range(31)) - {0}
        await consumer.commit()
        assert sum((await consumer.get_lag()).values()) == 0


@on_trio
@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
async def test_what_others_have_compressed_is_read(
    kafka: KafkaServer, codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker compresses it, in Java. What cannot be unpacked is named, and nothing is skipped."""
    topic = await kafka.new_topic("compressed", configs={"compression.type": codec})
    url = f"kafka://{kafka.bootstrap}"
    await send_numbers(url, topic, range(1000))
    if codec != "gzip":
        with monkeypatch.context() as without:
            without.setattr("aiokafka.codec.cramjam", None)
            async with consuming(url, topic, group=topic) as consumer:
                with pytest.raises(rustmq_sdk.PermanentDriverError, match=rf"pip install cramjam.*{codec}"):
                    await consumer.receive(timeout=SOON)

    async with consuming(url, topic, group=topic) as consumer:
        assert await settle(consumer, 1000) == list(range(1000))


async def begins_with(url: str, topic: str, text: str) -> bool:
    async with consuming(url, topic, group=None) as consumer:
        return (await consumer.receive(timeout=SOON)).text() == text


async def transactions(kafka: KafkaServer, topic: str) -> None:
    """One that is committed between two that are aborted, with messages outside of any."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id=topic)
    await producer.start()
    try:
        for number, commits in enumerate((False, True, False)):
            await producer.begin_transaction()
            for value in range(10 * number, 10 * number + 5):
                await producer.send(topic, b"%d" % value)

            await producer.flush()
            await (producer.commit_transaction() if commits else producer.abort_transaction())
    finally:
        await producer.stop()


async def test_only_what_is_committed_is_read_where_that_is_asked_for(kafka: KafkaServer) -> None:
    topic = await kafka.new_topic("transactions")
    url = f"kafka://{kafka.bootstrap}"
    await anyio.to_thread.run_sync(asyncio.run, transactions(kafka, topic))
    await send_numbers(url, topic, [100])
    async with consuming(f"{url}?isolation=read_committed", topic, group=topic) as consumer:
        assert await settle(consumer, 6) == [10, 11, 12, 13, 14, 100]
        await consumer.commit()
        assert sum((await consumer.get_lag()).values()) == 0
        with pytest.raises(TimeoutError):
            await consumer.receive(timeout=0.5)

    async with consuming(url, topic, group=None) as consumer:
        assert len(await settle(consumer, 16)) == 16


async def test_a_reader_that_waits_for_more_answers_questions(kafka: KafkaServer) -> None:
    topic = await kafka.new_topic("asked")
    url = f"kafka://{kafka.bootstrap}?fetch_max_wait=20"  # the broker answers nothing else on that connection meanwhile
    await send_numbers(url, topic, range(3))
    async with consuming(url, topic, group=topic) as consumer:
        assert await settle(consumer, 3) == [0, 1, 2]
        with pytest.raises(TimeoutError):
            await consumer.receive(timeout=1)  # a fetch waits now

        with anyio.fail_after(10):
            assert sum((await consumer.get_lag()).values()) == 0
            await consumer.seek_to_timestamp(topic, 0, 0)
            await consumer.seek(topic, 0, 2)
