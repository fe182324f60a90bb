"""Promise 6: memory is bounded in messages and bytes, whatever the broker sends and however slow the user is."""

from __future__ import annotations

import gc
import sys
from typing import Any

import anyio
import pytest

from rustmq_sdk import Message, Messages, RetryPolicy, TopicPartition
from tests.promises.stage import (
    TOPIC,
    Stage,
    ack,
    handle_all,
    in_background,
    numbered,
    offsets,
    passes,
    take,
    take_all,
    until,
)

pytestmark = pytest.mark.virtual_time


class Peaks:
    """The most that was ever taken in at once: asked at each arrival."""

    def __init__(self) -> None:
        self.consumer: Any = None
        self.messages = 0
        self.bytes = 0

    def on_received(self, partition: TopicPartition, messages: int, size: int) -> None:
        lanes = self.consumer._session.lanes
        self.messages = max(self.messages, self.consumer.statistics().in_flight)
        self.bytes = max(self.bytes, sum(lane.ledger.in_flight_bytes for lane in lanes))


class TestMessages:
    @pytest.mark.parametrize(("partitions", "limit", "prefetch"), [(1, 50, 20), (4, 50, 20), (3, 7, 1000), (1, 1, 1)])
    async def test_no_more_than_max_in_flight_are_taken_in(
        self, stage: Stage, partitions: int, limit: int, prefetch: int
    ) -> None:
        stage.create(partitions)
        for partition in range(partitions):
            stage.send(300, partition=partition)

        peaks = Peaks()
        async with stage.consumer(max_in_flight=limit, prefetch=prefetch, observers=[peaks]) as consumer:
            peaks.consumer = consumer
            await passes(10)
            assert consumer.statistics().received <= min(limit, prefetch)
            held = await take_all(consumer)
            assert len(held) <= limit
            assert consumer.statistics().received == len(held)
            reasons = [reason.code for reason in consumer.health().reasons]
            assert "max_in_flight" in reasons or len(held) < limit
            assert consumer.health().ok
            await ack(*held)
            assert len(await handle_all(consumer)) == 300 * partitions - len(held)

        assert 0 < peaks.messages <= limit

    async def test_a_queue_is_held_back_as_well(self, queue: Stage) -> None:
        queue.send(300)
        async with queue.consumer(max_in_flight=40, prefetch=10) as consumer:
            held = await take_all(consumer, quiet=100)
            assert len(held) == 40
            await ack(*held)
            assert len(await handle_all(consumer)) == 260

    async def test_undelivered_messages_are_no_more_than_the_prefetch(self, either: Stage) -> None:
        either.send(5000)
        async with either.consumer(prefetch=100) as consumer:
            for _ in range(40):
                await ack(*(await take(consumer, 20)))
                await passes(0.1)
                assert consumer.statistics().buffered <= 100

    async def test_acks_in_any_order_make_room_at_once(self, stage: Stage) -> None:
        stage.send(400)
        async with stage.consumer(max_in_flight=20) as consumer:
            hand = await take(consumer, 20)
            start = anyio.current_time()
            while len(hand) < 100:
                await hand[len(hand) - 10].ack()
                hand += await take(consumer, 1)

            assert anyio.current_time() - start < 1

    @pytest.mark.parametrize("limit", [{"max_uncommitted": 10}, {"max_span": 10}])
    async def test_every_bound_lets_go_on_as_soon_as_there_is_room(self, stage: Stage, limit: dict[str, int]) -> None:
        stage.send(500)
        async with stage.consumer(prefetch=5, commit_interval=60, **limit) as consumer:  # type: ignore[arg-type]
            start = anyio.current_time()
            for _ in range(500):
                await (await consumer.receive(5)).ack()

            # Below a tenth of a second for each round of ten, where waiting for the next poll would take a second.
            assert anyio.current_time() - start < 5

    async def test_max_uncommitted_bounds_what_would_run_again(self, stage: Stage) -> None:
        stage.plan.breaks("source.commit")
        stage.send(2000)
        async with stage.consumer(max_uncommitted=100, prefetch=20, circuit_open=1) as consumer:
            first = len(await handle_all(consumer, quiet=10))
            assert 100 <= first <= 140
            assert "max_uncommitted" in [reason.code for reason in consumer.health().reasons]
            stage.plan.heals()
            assert len(await handle_all(consumer, quiet=10)) == 2000 - first

    async def test_max_uncommitted_bounds_nothing_where_nothing_is_committed(self, stage: Stage) -> None:
        stage.send(500)
        async with stage.consumer(group=None, max_uncommitted=50, prefetch=20) as consumer:
            assert len(await handle_all(consumer, quiet=10)) == 500
            assert consumer.health().reasons == []

    async def test_max_span_bounds_how_far_one_message_lets_others_run_ahead(self, stage: Stage) -> None:
        stage.send(2000)
        async with stage.consumer(max_span=150, prefetch=20) as consumer:
            held = await consumer.receive()
            ahead = len(await handle_all(consumer, quiet=10))
            assert 150 <= ahead + 1 <= 170
            (reason,) = consumer.health().reasons
            assert (reason.code, reason.offset) == ("max_span", 0)
            await held.ack()
            assert len(await handle_all(consumer)) == 1999 - ahead

    async def test_a_paused_partition_does_not_starve_the_others(self, stage: Stage) -> None:
        stage.create(4)
        for partition in range(4):
            stage.send(500, partition=partition)

        async with stage.consumer(max_in_flight=20, prefetch=20) as consumer:
            await until(lambda: consumer.statistics().buffered)
            consumer.pause_partitions([(TOPIC, 0)])
            assert len(await handle_all(consumer)) == 1500

    async def test_a_partition_that_waits_for_its_retries_does_not_starve_the_others(self, stage: Stage) -> None:
        stage.create(2)
        stage.send(200, partition=0)
        stage.send(200, partition=1)
        async with stage.consumer(
            max_in_flight=20, prefetch=10, retry=RetryPolicy(initial=1000, max_delay=1000, jitter="none")
        ) as consumer:
            seen = 0
            while seen < 200:
                message = await consumer.receive(60)
                if message.partition == 0:
                    await message.nack()
                else:
                    seen += 1
                    await message.ack()

    async def test_retries_get_in_although_there_is_no_room(self, stage: Stage) -> None:
        stage.send(100)
        async with stage.consumer(max_in_flight=10, retry=RetryPolicy(initial=1, jitter="none")) as consumer:
            for message in await take(consumer, 10):
                await message.nack()

            again = await take(consumer, 10)
            assert offsets(again) == list(range(10))
            await ack(*again)
            assert await handle_all(consumer) == numbered(90, 10)


class TestBytes:
    async def test_no_more_bytes_are_taken_in_than_configured(self, stage: Stage) -> None:
        stage.send(["x" * 1000] * 500)
        peaks = Peaks()
        async with stage.consumer(max_in_flight_bytes=20_000, observers=[peaks]) as consumer:
            peaks.consumer = consumer
            held = await take_all(consumer)
            assert 10 <= len(held) <= 20
            await ack(*held)
            assert len(await handle_all(consumer)) == 500 - len(held)

        assert 0 < peaks.bytes <= 20_000

    async def test_a_message_larger_than_the_bound_gets_through_alone(self, either: Stage) -> None:
        either.send(["small", "x" * 50_000, "y" * 50_000, "small again"])
        async with either.consumer(max_in_flight_bytes=1000) as consumer:
            sizes = []
            for _ in range(4):
                message = await consumer.receive(10)
                sizes.append(len(message.payload or b""))
                await message.ack()

            assert sizes == [5, 50_000, 50_000, 11]

    async def test_large_messages_of_many_partitions_do_not_add_up(self, stage: Stage) -> None:
        stage.create(30)
        for partition in range(30):
            stage.send(["x" * 1000] * 2, partition=partition)

        async with stage.consumer(max_in_flight_bytes=4500) as consumer:
            held = await take_all(consumer)
            assert len(held) == 5
            await ack(*held)
            assert len(await handle_all(consumer)) == 55

    async def test_a_queue_counts_bytes_as_well(self, queue: Stage) -> None:
        queue.send(["x" * 1000] * 100)
        async with queue.consumer(max_in_flight_bytes=10_000) as consumer:
            held = await take_all(consumer)
            assert 5 <= len(held) <= 10
            await ack(*held)
            assert len(await handle_all(consumer)) == 100 - len(held)


class TestWhatIsForgotten:
    async def test_an_hour_long_nack_holds_no_more_than_its_span(self, stage: Stage) -> None:
        stage.send(20_000)
        async with stage.consumer(retry=RetryPolicy(initial=3600, max_delay=3600, jitter="none")) as consumer:
            await (await consumer.receive()).nack()
            while (batch := await consumer.receive_batch(500, timeout=10))[-1].offset != 19_999:
                await batch.ack()

            await batch.ack()
            await passes(2)
            lane = next(iter(consumer._session.lanes))
            assert len(lane.ledger.open) == 1
            assert stage.committed() == 0
            assert consumer.statistics().in_flight == 1

        async with stage.consumer() as consumer:
            assert offsets(await take_all(consumer)) == [0]

    async def test_settled_messages_are_let_go(self, either: Stage) -> None:
        body = b"z" * 499 + b"!"
        either.send([body.decode()] * 3000)

        async def handler(batch: Messages) -> None:
            assert batch

        async with either.consumer(prefetch=100) as consumer, anyio.create_task_group() as group:
            await in_background(group, lambda: consumer.run(handler, batch_size=50))
            await until(lambda: consumer.statistics().acked == 3000)
            gc.collect()
            batches = [each for each in gc.get_objects() if isinstance(each, Messages)]
            # Another test's may still be held by what it has raised.
            assert sum(body in (message.payload for message in batch) for batch in batches) <= 1
            consumer.stop()

    async def test_bodies_kept_for_a_retry_are_let_go_with_their_partition(self, stage: Stage) -> None:
        stage.send(1)
        async with stage.consumer() as consumer:
            message = await consumer.receive(10)
            payload = message.payload
            held = sys.getrefcount(payload)
            await message.nack(delay=1000)
            await passes(1)
            assert sys.getrefcount(payload) == held + 1
            consumer.pause_partitions([TopicPartition(TOPIC, 0)])
            await consumer.seek(TOPIC, 0, 0)
            assert sys.getrefcount(payload) == held

    async def test_many_keys_are_forgotten_with_their_messages(self, stage: Stage) -> None:
        stage.send(6000, keys=[f"key {number}" for number in range(6000)])

        async def handler(message: Message) -> None:
            pass

        async with stage.consumer(prefetch=100) as consumer, anyio.create_task_group() as group:
            await in_background(group, consumer.run, handler)
            await until(lambda: consumer.statistics().acked == 6000)
            lane = next(iter(consumer._session.lanes))
            assert len(lane.ledger.busy) < 2500
            consumer.stop()


@pytest.mark.virtual_time
async def test_who_waits_beside_a_full_bound_is_told_so(stage: Stage) -> None:
    stage.send(30)
    async with stage.consumer(max_in_flight=10, prefetch=10) as consumer:
        await take(consumer, 10)
        with pytest.raises(TimeoutError, match="10 messages are unsettled"):
            await consumer.receive(timeout=3)
