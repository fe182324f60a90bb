"""Races, one at a time: what has to hold when two things happen at the same moment."""

from __future__ import annotations

import math
from functools import partial

import anyio
import pytest

from rustmq_sdk import AckResult, Message, RetryPolicy, StalePartition
from rustmq_sdk.testing import BACKENDS, Fault
from rustmq_sdk.testing import run as run_test
from rustmq_sdk.testing.clock import Backend
from rustmq_sdk.testing.faults import Kind
from tests.promises.stage import DLQ, GROUP, TOPIC, Plan, Stage, ack, handle_all, offsets, passes, take, until

pytestmark = pytest.mark.virtual_time

AT_ONCE = RetryPolicy(max_attempts=3, initial=0.0, jitter="none")


class TestRevoke:
    async def test_no_commit_follows_a_revoke_that_ran_out_of_time_behind_a_hanging_commit(self, stage: Stage) -> None:
        """While the group waits for its other member, nobody may commit what this one has given up."""
        stage.create(2)
        stage.send(4, partition=0)
        stage.send(4, partition=1)
        hanging = Plan()
        async with stage.consumer(plan=Plan(), close_timeout=20.0) as slow:
            await take(slow, 8)
            async with stage.consumer(plan=hanging, close_timeout=1.0, commit_interval=0.1) as consumer:
                hanging.breaks("source.commit", kind="hang", seconds=3.0)
                await ack(*await take(consumer, 4, timeout=100.0))
                await until(lambda: hanging.calls["source.commit"] == 1)
                stage.broker.rebalance(GROUP)
                await passes(10.0)
                assert not consumer.assigned_partitions
                assert hanging.calls["source.commit"] == 1

    async def test_a_revoke_during_a_read_for_a_retry_loses_neither_message_nor_attempt(self, stage: Stage) -> None:
        stage.send(1)
        stage.plan = Plan(Fault("source.read", "hang", 1, seconds=1.0))
        async with stage.consumer(retry=AT_ONCE, cache_messages=0) as consumer:
            (message,) = await take(consumer, 1)
            await message.nack()
            await passes(0.5)
            assert stage.plan.calls["source.read"] == 1
            stage.broker.rebalance(GROUP)
            (again,) = await take(consumer, 1)
            assert (again.offset, again.attempt, again.payload) == (0, 2, message.payload)
            assert await again.ack(durable=True) is AckResult.DURABLE

        assert stage.committed() == 1

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_a_retry_that_is_due_in_the_moment_of_a_revoke_comes_once(self, backend: Backend) -> None:
        for seed in range(30):
            run_test(_retry_at_revoke, backend=backend, seed=seed)

    async def test_closing_while_a_revoke_waits_for_a_handler_commits_what_was_handled(self, stage: Stage) -> None:
        stage.send(2)
        done = anyio.Event()

        async def slow(message: Message) -> None:
            await done.wait()

        async with stage.consumer(close_timeout=5.0) as consumer, anyio.create_task_group() as tasks:
            tasks.start_soon(partial(consumer.run, slow, concurrency=2))
            await passes(0.1)
            stage.broker.rebalance(GROUP)
            await passes(0.1)
            tasks.start_soon(consumer.close)
            await passes(0.1)
            done.set()

        assert stage.committed() == 2

    async def test_stopping_during_a_rebalance_ends_run_and_commits(self, stage: Stage) -> None:
        stage.send(20)
        async with stage.consumer() as consumer:

            async def handle(message: Message) -> None:
                await passes(0.01)
                if message.offset == 5:
                    stage.broker.rebalance(GROUP)
                    consumer.stop()

            await consumer.run(handle)

        assert stage.committed() == 6


class TestCommit:
    async def test_a_durable_ack_that_no_commit_can_cover_asks_at_leisure(self) -> None:
        """With a nacked message below it and no room in the checkpoint, every commit says the same."""
        lesser = Stage(checkpoint_room=0)
        lesser.send(2)
        async with lesser.consumer(commit_timeout=5.0) as consumer:
            _, second = await take(consumer, 2)
            began = anyio.current_time()
            assert await second.ack(durable=True) is AckResult.PENDING
            assert anyio.current_time() - began == pytest.approx(5.0)

        lesser.close()

    async def test_a_durable_ack_is_told_as_soon_as_the_message_below_it_is_settled(self) -> None:
        lesser = Stage(checkpoint_room=0)
        lesser.send(2)
        async with (
            lesser.consumer(commit_timeout=5.0, commit_interval=60.0) as consumer,
            anyio.create_task_group() as tasks,
        ):
            first, second = await take(consumer, 2)

            async def settle_first() -> None:
                await passes(1.0)
                await first.ack()

            tasks.start_soon(settle_first)
            began = anyio.current_time()
            assert await second.ack(durable=True) is AckResult.DURABLE
            assert anyio.current_time() - began < 1.1

        lesser.close()

    async def test_a_partition_that_expires_while_its_commit_hangs_is_fenced_and_handled_again(
        self, stage: Stage
    ) -> None:
        stage.send(3)
        stage.plan = Plan(Fault("source.commit", "hang", 1, seconds=1.0))
        async with stage.consumer(commit_interval=0.1) as consumer:
            first, *rest = await take(consumer, 3)
            await first.ack()
            await until(lambda: stage.plan.calls["source.commit"] == 1)
            stage.broker.expire(GROUP)
            await passes(0.1)
            assert [await message.ack() for message in rest] == [AckResult.STALE, AckResult.STALE]
            again = await take(consumer, 3)
            assert offsets(again) == [0, 1, 2]
            await passes(2.0)
            assert stage.committed() is None
            await ack(*again)

        assert stage.committed() == 3

    async def test_a_seek_while_a_commit_hangs_has_the_last_word(self, stage: Stage) -> None:
        stage.send(10)
        stage.plan = Plan(Fault("source.commit", "hang", 1, seconds=1.0))
        async with stage.consumer(commit_interval=0.1) as consumer:
            await ack(*await take(consumer, 10))
            await until(lambda: stage.plan.calls["source.commit"] == 1)
            await consumer.seek(TOPIC, 0, 4)
            await passes(3.0)
            assert stage.committed() == 4
            assert offsets(await take(consumer, 6)) == [4, 5, 6, 7, 8, 9]

    async def test_a_commit_that_is_under_way_when_closing_begins_takes_nothing_with_it(self, stage: Stage) -> None:
        stage.send(10)
        stage.plan = Plan(Fault("source.commit", "hang", 1, seconds=1.0))
        async with stage.consumer(commit_interval=0.1) as consumer:
            messages = await take(consumer, 10)
            await ack(*messages[:5])
            await until(lambda: stage.plan.calls["source.commit"] == 1)
            await ack(*messages[5:])

        assert stage.committed() == 10

    @pytest.mark.parametrize("kind", ["refused", "reply_lost", "hang", "disconnect"])
    async def test_a_commit_that_failed_is_made_up_for_without_another_ack(self, stage: Stage, kind: Kind) -> None:
        stage.send(10)
        stage.plan = Plan(Fault("source.commit", kind, 1, seconds=5.0))
        async with stage.consumer(commit_interval=0.1, commit_timeout=1.0, circuit_failures=100) as consumer:
            await ack(*await take(consumer, 10))
            await until(lambda: stage.plan.injected)
            await passes(10.0)
            assert stage.committed() == 10

    async def test_an_open_circuit_is_waited_for_not_run_into(
        self, stage: Stage, caplog: pytest.LogCaptureFixture
    ) -> None:
        stage.send(10)
        stage.plan.breaks("source.commit")
        async with stage.consumer(commit_interval=0.1, circuit_failures=2, circuit_open=60.0) as consumer:
            await ack(*await take(consumer, 10))
            await passes(55.0)
            assert sum(record.__dict__.get("event") == "commit_failed" for record in caplog.records) == 2
            stage.plan.heals()
            await passes(10.0)
            assert stage.committed() == 10

    async def test_a_durable_ack_and_a_commit_beside_a_hanging_one_wait_for_the_next(self, stage: Stage) -> None:
        stage.send(3)
        stage.plan = Plan(Fault("source.commit", "hang", 1, seconds=1.0))
        async with stage.consumer(commit_interval=0.1) as consumer, anyio.create_task_group() as tasks:
            first, second, third = await take(consumer, 3)
            await first.ack()
            await until(lambda: stage.plan.calls["source.commit"] == 1)
            await second.ack()
            tasks.start_soon(consumer.commit)
            assert await third.ack(durable=True) is AckResult.DURABLE
            assert stage.committed() == 3

        assert stage.plan.calls["source.commit"] == 2


class TestDeadLetters:
    @pytest.mark.parametrize("kind", ["refused", "reply_lost", "hang", "disconnect"])
    async def test_a_letter_that_had_trouble_is_there_once_and_the_position_moves(
        self, stage: Stage, kind: Kind
    ) -> None:
        stage.send(2)
        stage.plan = Plan(Fault("dead_letters.put", kind, 1, seconds=1.0))
        async with stage.consumer(dead_letter_topic=DLQ) as consumer:
            first, second = await take(consumer, 2)
            await first.reject()
            await second.ack()
            await until(lambda: stage.committed() == 2)

        assert [letter.offset for letter in stage.letters] == [0]

    async def test_a_letter_for_a_partition_lost_meanwhile_is_no_ack_the_less(self, stage: Stage) -> None:
        stage.send(2)
        stage.plan = Plan(Fault("dead_letters.put", "hang", 1, seconds=1.0))
        async with stage.consumer(dead_letter_topic=DLQ) as consumer:
            first, second = await take(consumer, 2)
            await second.ack()
            await first.reject()
            await passes(0.5)
            stage.broker.expire(GROUP)
            await passes(1.0)
            assert len(stage.letters) == 1
            assert consumer.statistics().acked == 1
            await handle_all(consumer)


class TestLeaving:
    async def test_what_a_queue_took_back_is_not_counted_as_acked(self, queue: Stage) -> None:
        queue.send(3)
        async with queue.consumer() as consumer:
            first, *_ = await take(consumer, 3)
            await first.ack()

        assert consumer.statistics().acked == 1

    @pytest.mark.parametrize("operation", ["source.committed", "source.start_offsets"])
    async def test_closing_ends_in_time_though_the_broker_never_says_where_to_start(
        self, stage: Stage, operation: str
    ) -> None:
        stage.send(1)
        stage.plan.breaks(operation, kind="hang", seconds=math.inf)
        began = anyio.current_time()
        async with stage.consumer(close_timeout=5.0):
            await passes(1.0)

        assert anyio.current_time() - began <= 6.0

    async def test_a_handle_that_outlives_its_consumer_is_stale(self, stage: Stage) -> None:
        stage.send(1)
        async with stage.consumer() as consumer:
            (message,) = await take(consumer, 1)

        assert await message.ack() is AckResult.STALE
        with pytest.raises(StalePartition):
            await message.ack(durable=True)


class TestRetention:
    async def test_what_was_settled_before_a_restart_does_not_hide_what_the_log_lost_after_it(
        self, stage: Stage
    ) -> None:
        stage.send(20)
        async with stage.consumer(max_in_flight=20) as consumer:
            messages = await take(consumer, 20)
            await ack(*messages[:2], *messages[5:10])

        assert stage.committed() == 2
        async with stage.consumer(
            max_in_flight=3, prefetch=3, on_lost="dead_letter", dead_letter_topic=DLQ
        ) as consumer:
            again = await take(consumer, 3)
            assert offsets(again) == [2, 3, 4]
            await passes(0.1)
            stage.broker.truncate(TOPIC, 0, 15)
            await ack(*again)
            assert offsets(await take(consumer, 3)) == [15, 16, 17]
            await passes(1.0)
            assert consumer.statistics().lost == 5


class TestOrder:
    @pytest.mark.parametrize("backend", BACKENDS)
    def test_a_failed_batch_comes_back_in_the_order_of_its_keys(self, backend: Backend) -> None:
        for seed in range(20):
            run_test(_failed_batch, backend=backend, seed=seed)


async def _retry_at_revoke() -> None:
    stage = Stage()
    stage.send(1)
    async with stage.consumer(retry=AT_ONCE) as consumer:
        (message,) = await take(consumer, 1)
        await message.nack(delay=1.0)
        await passes(1.0)
        stage.broker.rebalance(GROUP)
        again = await consumer.receive(10)
        assert (again.offset, again.attempt) == (0, 2)
        assert await again.ack() is AckResult.RECORDED
        with pytest.raises(TimeoutError):
            await consumer.receive(10)

    assert stage.committed() == 1
    stage.close()


async def _failed_batch() -> None:
    stage = Stage()
    stage.send(6, keys=("a",))
    handled: list[int | None] = []

    async with stage.consumer(retry=RetryPolicy(max_attempts=3, initial=0.5)) as consumer:

        async def handle(messages: list[Message]) -> None:
            if any(message.attempt == 1 for message in messages):
                raise ValueError

            handled.extend(message.offset for message in messages)
            if len(handled) == 6:
                consumer.stop()

        await consumer.run(handle, batch_size=6, batch_wait=0.0)

    assert handled == [0, 1, 2, 3, 4, 5]
    stage.close()
