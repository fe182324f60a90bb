"""Promise 10: no message of a paused partition is delivered, what was fetched is kept, others flow."""

from __future__ import annotations

from collections.abc import Collection

import anyio
import pytest

from rustmq_sdk import Message, PartitionStopped, RetryPolicy, TopicPartition
from rustmq_sdk.testing import Fault
from tests.promises.stage import (
    TOPIC,
    TP,
    Plan,
    Stage,
    ack,
    handle_all,
    in_background,
    numbered,
    offsets,
    passes,
    take,
    take_all,
    texts,
    until,
)

pytestmark = pytest.mark.virtual_time

OTHER = TopicPartition(TOPIC, 1)


@pytest.fixture
def two(stage: Stage) -> Stage:
    """Two partitions with 50 messages each."""
    stage.create(2)
    stage.send(50, partition=0)
    stage.send(50, partition=1)
    return stage


async def test_nothing_of_it_is_delivered_and_others_flow(two: Stage) -> None:
    async with two.consumer() as consumer:
        await take(consumer, 1)
        consumer.pause_partitions([TP])
        messages = await take_all(consumer, quiet=100)
        assert {message.partition for message in messages} <= {1}
        assert len(messages) >= 49
        assert consumer.paused_partitions == {TP}
        assert consumer.statistics().partitions[TP].paused


async def test_prefetched_messages_are_kept_in_order_and_not_fetched_again(stage: Stage) -> None:
    stage.send(50)
    async with stage.consumer() as consumer:
        first = await take(consumer, 10)
        received = consumer.statistics().received
        assert received == 50
        consumer.pause_partitions([TP])
        with pytest.raises(TimeoutError):
            await consumer.receive(50)

        with pytest.raises(TimeoutError):
            await consumer.receive_batch(timeout=50)

        assert consumer.statistics().buffered == 40
        consumer.resume_partitions([TP])
        rest = await take_all(consumer)
        assert offsets(first + rest) == list(range(50))
        assert consumer.statistics().received == 50


async def test_nothing_more_of_it_is_fetched(stage: Stage) -> None:
    stage.send(500)
    async with stage.consumer(prefetch=20) as consumer:
        await ack(*(await take(consumer, 1)))
        consumer.pause_partitions([TP])
        received = consumer.statistics().received
        await passes(100)
        assert consumer.statistics().received == received
        consumer.resume_partitions([TP])
        assert await handle_all(consumer) == numbered(499, 1)


async def test_what_arrives_after_the_pause_of_a_fetch_in_flight_is_kept(stage: Stage) -> None:
    stage.plan = Plan(*(Fault("source.fetch", "hang", call, seconds=5) for call in (2, 3, 4)))
    stage.send(20)
    async with stage.consumer() as consumer:
        await until(lambda: consumer.assigned_partitions)
        await passes(0.1)
        consumer.pause_partitions([TP])
        with pytest.raises(TimeoutError):
            await consumer.receive(60)

        consumer.resume_partitions([TP])
        assert await handle_all(consumer) == numbered(20)


async def test_what_was_handed_out_before_can_be_settled(two: Stage) -> None:
    async with two.consumer() as consumer:
        messages = [message for message in await take(consumer, 100) if message.partition == 0]
        consumer.pause_partitions([TP])
        await ack(*messages)
        await consumer.commit()
        assert two.committed(0) == 50


async def test_retries_wait_for_the_resume_as_well(two: Stage) -> None:
    async with two.consumer(retry=RetryPolicy(initial=1, jitter="none")) as consumer:
        for message in await take(consumer, 100):
            await (message.nack() if message.partition == 0 else message.ack())

        consumer.pause_partitions([TP])
        assert await take_all(consumer, quiet=30) == []
        consumer.resume_partitions([TP])
        again = await take_all(consumer)
        assert sorted(texts(again)) == sorted(numbered(50))
        assert {message.attempt for message in again} == {2}


async def test_it_survives_a_rebalance_and_a_loss(two: Stage) -> None:
    async with two.consumer() as consumer:
        await until(lambda: len(consumer.assigned_partitions) == 2)
        consumer.pause_partitions([TP])
        two.broker.rebalance("g")
        await passes(1)
        assert _partitions_of(await take_all(consumer)) == {1}
        two.broker.expire("g")
        await passes(1)
        assert consumer.paused_partitions == {TP}
        assert _partitions_of(await take_all(consumer)) == {1}
        consumer.resume_partitions([TP])
        assert offsets(await take_all(consumer)) == list(range(50))


async def test_a_partition_can_be_paused_before_it_is_ours(two: Stage) -> None:
    async with two.consumer() as consumer:
        consumer.pause_partitions([TP])
        assert _partitions_of(await take_all(consumer)) == {1}


async def test_a_seek_keeps_the_pause(two: Stage) -> None:
    async with two.consumer() as consumer:
        await take(consumer, 100)
        consumer.pause_partitions([TP])
        await consumer.seek(TOPIC, 0, 10)
        assert await take_all(consumer, quiet=20) == []
        consumer.resume_partitions([TP])
        assert offsets(await take_all(consumer)) == list(range(10, 50))


async def test_a_waiting_receive_gets_the_first_message_after_the_resume(stage: Stage) -> None:
    stage.send(5)
    async with stage.consumer() as consumer, anyio.create_task_group() as group:
        await until(lambda: consumer.statistics().buffered)
        consumer.pause_partitions([TP])
        waiting = [await in_background(group, consumer.receive) for _ in range(3)]
        await passes(20)
        assert waiting == [[], [], []]
        consumer.resume_partitions([TP])
        await passes(1)
        assert sorted(message.text() for (message,) in waiting) == numbered(3)


@pytest.mark.parametrize("ordering", ["none", "key", "partition"])
async def test_run_obeys_it(two: Stage, ordering: str) -> None:
    handled: list[tuple[int | None, str]] = []

    async def handler(message: Message) -> None:
        await passes(1)
        handled.append((message.partition, message.text()))

    async with two.consumer() as consumer, anyio.create_task_group() as group:
        await in_background(group, lambda: consumer.run(handler, concurrency=4, ordering=ordering))  # type: ignore[arg-type]
        await passes(5)
        consumer.pause_partitions([TP])
        await passes(1.1)  # what was in hand is finished
        before = len([body for partition, body in handled if partition == 0])
        await passes(100)
        assert len([body for partition, body in handled if partition == 0]) == before
        assert len([body for partition, body in handled if partition == 1]) == 50
        consumer.resume_partitions([TP])
        await until(lambda: len(handled) == 100)
        consumer.stop()

    if ordering == "partition":  # the pause has not changed it
        assert [body for partition, body in handled if partition == 0] == numbered(50)
        assert [body for partition, body in handled if partition == 1] == numbered(50)

    assert sorted(handled) == sorted((partition, body) for partition in (0, 1) for body in numbered(50))


async def test_a_queue_can_be_paused(queue: Stage) -> None:
    queue.send(5, topic="a")
    queue.send(5, topic="b")
    async with queue.consumer("a", "b") as consumer:
        await until(lambda: len(consumer.assigned_partitions) == 2)
        consumer.pause_partitions([("a", None)])
        assert {message.topic for message in await take_all(consumer, quiet=100)} == {"b"}
        consumer.resume_partitions([("a", None)])
        assert {message.topic for message in await take_all(consumer, quiet=100)} == {"a"}


async def test_observers_hear_of_it(stage: Stage) -> None:
    heard: list[tuple[str, list[TopicPartition]]] = []

    class Observer:
        def on_paused(self, partitions: Collection[TopicPartition]) -> None:
            heard.append(("paused", list(partitions)))

        def on_resumed(self, partitions: Collection[TopicPartition]) -> None:
            heard.append(("resumed", list(partitions)))

    async with stage.consumer(observers=[Observer()]) as consumer:
        consumer.pause_partitions([TP, OTHER])
        consumer.resume_partitions([TP])
        assert consumer.paused_partitions == {OTHER}

    assert heard == [("paused", [TP, OTHER]), ("resumed", [TP])]


def _partitions_of(messages: list[Message]) -> set[int | None]:
    return {message.partition for message in messages}


async def test_resuming_a_paused_partition_lifts_the_pause_and_not_the_stop(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.send(1)
    async with stage.consumer() as consumer:
        message = await consumer.receive(5)
        consumer.pause_partitions([TP])
        await message.reject("no good")
        consumer.resume_partitions([TP, TP])
        assert {reason.code for reason in consumer.health().reasons} == {"partition_stopped"}
        assert "resume it once more" in caplog.text
        with pytest.raises(PartitionStopped):
            await consumer.receive(5)

        consumer.resume_partitions([TP])
        assert (await consumer.receive(5)).attempt == 2


async def test_pausing_and_resuming_to_hold_back_the_flow_gives_up_no_broken_record(stage: Stage) -> None:
    stage.create()
    stage.broker.append_broken(TOPIC, 0, b"raw")
    stage.send(1)
    async with stage.consumer() as consumer:
        for _ in range(3):
            with pytest.raises(PartitionStopped):
                await consumer.receive(5)

            consumer.pause_partitions([TP])
            consumer.resume_partitions([TP])
            assert consumer.paused_partitions == frozenset()

    assert stage.committed() in (None, 0)


async def test_a_partition_can_be_paused_and_stopped_and_health_says_both(stage: Stage) -> None:
    stage.send(1)
    async with stage.consumer() as consumer:
        await (await consumer.receive(5)).reject("no good")
        consumer.pause_partitions([TP])
        assert consumer.paused_partitions == {TP}
        assert {reason.code for reason in consumer.health().reasons} == {"partition_stopped", "paused"}
