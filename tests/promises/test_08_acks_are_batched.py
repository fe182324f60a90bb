"""Promise 8: acks cost few broker calls and ``ack()`` waits for nothing; a durable one until the broker has it."""

from __future__ import annotations

import logging
from collections.abc import Coroutine
from itertools import pairwise
from typing import Any

import anyio
import pytest

from rustmq_sdk import AckResult, Message, Retry, RetryPolicy, StalePartition
from rustmq_sdk._core.commit_due import SHORT_PAUSE
from rustmq_sdk._runtime.commits import LogCommits
from rustmq_sdk.testing import Fault
from tests.promises.stage import DLQ, TOPIC, Plan, Stage, ack, in_background, passes, take, take_all, until, works_for

pytestmark = pytest.mark.virtual_time


def at_once(call: Coroutine[Any, Any, Any]) -> Any:
    """The result of a call that suspends nowhere."""
    with pytest.raises(StopIteration) as caught:
        call.send(None)

    return caught.value.value


def settling_calls(stage: Stage) -> int:
    return stage.plan.calls["source.commit"] + stage.plan.calls["source.settle"]


class TestCost:
    async def test_ten_thousand_acks_cost_a_few_calls(self, either: Stage) -> None:
        either.send(10_000)
        async with either.consumer() as consumer:
            for _ in range(10_000):
                await (await consumer.receive()).ack()

        assert settling_calls(either) <= 2 + (10 if either.kind == "queue" else 0)

    async def test_a_steady_trickle_costs_one_call_an_interval(self, either: Stage) -> None:
        async with either.consumer(commit_interval=10) as consumer:
            for _ in range(1000):
                either.send(3)
                messages = await take(consumer, 3)
                await ack(*messages[:2])
                await passes(0.1)
                await ack(*messages[2:])

            assert settling_calls(either) <= 1000 * 0.1 / 0.05
            in_flight = await self._calls_while_something_is_in_flight(either, consumer)

        assert in_flight <= 12

    async def _calls_while_something_is_in_flight(self, stage: Stage, consumer: Any) -> int:
        stage.send(1)
        await take(consumer, 1)
        before = settling_calls(stage)
        for _ in range(1000):
            stage.send(1)
            await ack(*(await take(consumer, 1)))
            await passes(0.1)

        return settling_calls(stage) - before

    @pytest.mark.parametrize(("cost", "pause"), [(0.0, 0.1), (0.1, 2.1), (3.0, 13.0)])
    async def test_checkpoints_that_take_long_to_write_down_are_rarer(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch, cost: float, pause: float
    ) -> None:
        """At most a twentieth of the time goes into them, as far as the interval allows."""
        prepare, prepared_at = LogCommits.prepare, []

        def take_long(*arguments: Any) -> Any:
            prepared_at.append(anyio.current_time())
            works_for(cost)
            return prepare(*arguments)

        monkeypatch.setattr(LogCommits, "prepare", take_long)
        async with stage.consumer(commit_every=10, commit_interval=10) as consumer:
            for _ in range(500):
                stage.send(10)
                await ack(*(await take(consumer, 10)))
                await passes(0.1)

        between = [later - before for before, later in pairwise(prepared_at[:-1])]
        assert len(between) > 2
        assert [round(each, 1) for each in between] == [pytest.approx(pause, abs=0.11)] * len(between)

    async def test_what_was_settled_is_committed_soon_after_a_busy_consumer_runs_dry(self, stage: Stage) -> None:
        """It runs dry again and again: then the next commit is not worth waking up for each time, but the last one."""
        for pause in (0.0, 0.01, 0.03, 0.049, 0.051, 0.12):
            async with stage.consumer(commit_interval=100) as consumer:
                for _ in range(20):
                    stage.send(7)
                    await ack(*(await take(consumer, 7)))
                    await passes(pause)

                await passes(2 * SHORT_PAUSE)
                assert await consumer.committed_offset(TOPIC, 0) == await consumer.position(TOPIC, 0)

    async def test_an_idle_consumer_commits_nothing(self, either: Stage) -> None:
        either.send(10)
        async with either.consumer() as consumer:
            await ack(*(await take(consumer, 10)))
            await passes(5)
            before = settling_calls(either)
            await passes(600)
            assert settling_calls(either) == before

    async def test_an_unsettled_message_alone_causes_no_commits(self, either: Stage) -> None:
        either.send(10)
        async with either.consumer(stall_after=10_000) as consumer:
            await ack(*(await take(consumer, 10))[1:])
            await passes(5)
            before = settling_calls(either)
            await passes(600)
            assert settling_calls(either) == before

    async def test_one_commit_carries_all_partitions(self, stage: Stage) -> None:
        stage.create(20)
        for partition in range(20):
            stage.send(10, partition=partition)

        async with stage.consumer() as consumer:
            await ack(*(await take(consumer, 200)))
            await passes(5)
            assert settling_calls(stage) == 1
            assert all(stage.committed(partition) == 10 for partition in range(20))


class TestNacks:
    @pytest.mark.parametrize("acked", [0, 5])
    async def test_a_queue_hears_of_them_soon_so_that_short_delays_are_short(self, queue: Stage, acked: int) -> None:
        queue.send(1 + acked)
        async with queue.consumer(commit_interval=600, commit_every=1000) as consumer:
            first, *others = await take(consumer, 1 + acked)
            await ack(*others)
            await passes(0.3)
            start = anyio.current_time()
            await first.nack(delay=0.2)
            again = await consumer.receive(60)
            assert again.attempt == 2
            assert anyio.current_time() - start == pytest.approx(0.2, abs=0.1)

    async def test_another_consumer_may_have_it_soon(self, queue: Stage) -> None:
        queue.send(1)
        async with queue.consumer(commit_interval=600) as one:
            message = await one.receive(5)
            one.pause_partitions([("t", None)])
            async with queue.consumer() as other:
                await message.nack(delay=0)
                assert (await other.receive(1)).attempt == 2

    async def test_they_share_calls(self, queue: Stage) -> None:
        queue.send(1000)
        async with queue.consumer(commit_interval=600) as consumer:
            for message in await take(consumer, 500):
                await message.nack(delay=3600)

            for message in await take(consumer, 500):
                await message.nack(delay=3600)
                await passes(0.001)

            await passes(1)
            assert consumer.statistics().uncommitted == 0
            assert settling_calls(queue) <= 15

    async def test_one_that_the_broker_refused_is_told_again_soon(self, queue: Stage) -> None:
        queue.plan = Plan(*(Fault("source.settle", "refused", call) for call in (1, 2, 3)))
        queue.send(1)
        async with queue.consumer(commit_interval=5) as consumer:
            await (await consumer.receive(5)).nack(delay=0)
            start = anyio.current_time()
            assert (await consumer.receive(60)).attempt == 2
            assert anyio.current_time() - start < 1

    async def test_a_body_that_the_cache_has_let_go_comes_again_soon(self) -> None:
        queue = Stage("queue", without="delayed_nack")
        queue.send(1)
        async with queue.consumer(commit_interval=600, cache_messages=0) as consumer:
            await (await consumer.receive(5)).nack(delay=1)
            start = anyio.current_time()
            assert (await consumer.receive(60)).attempt == 2
            assert anyio.current_time() - start == pytest.approx(1, abs=0.1)

        queue.close()


class TestWaiting:
    async def test_settling_never_suspends(self, either: Stage) -> None:
        either.send(60)
        async with either.consumer(dead_letter_topic=DLQ) as consumer:
            messages = await take(consumer, 60)
            for message in messages[:20]:
                assert at_once(message.ack()) is AckResult.RECORDED

            for message in messages[20:40]:
                assert at_once(message.nack()) is AckResult.RECORDED

            for message in messages[40:]:
                assert at_once(message.reject()) is AckResult.RECORDED

    @pytest.mark.parametrize("kind", ["hang", "refused"])
    async def test_nor_while_commits_fail_or_hang_or_the_circuit_is_open(self, either: Stage, kind: Any) -> None:
        either.plan.breaks("source.commit", "source.settle", kind=kind)
        either.send(100)
        async with either.consumer(commit_interval=0.1) as consumer:
            for _ in range(100):
                message = await consumer.receive(5)
                assert at_once(message.ack()) is AckResult.RECORDED
                await passes(1)

            assert consumer.statistics().acked == 100
            either.plan.heals()
            await passes(100)
            assert consumer.statistics().uncommitted == 0

    async def test_nor_while_a_rebalance_goes_on(self, stage: Stage) -> None:
        stage.send(20)
        async with stage.consumer() as consumer, anyio.create_task_group() as group:
            messages = await take(consumer, 20)
            stage.broker.rebalance("g")
            await anyio.wait_all_tasks_blocked()
            for message in messages[:19]:
                assert at_once(message.ack()) is AckResult.RECORDED

            waiting = await in_background(group, consumer.receive, 5)
            await passes(1)
            await messages[19].ack()
            stage.send(1)
            await passes(2)
            assert [message.text() for message in waiting] == ["m20"]

    @pytest.mark.parametrize("ordering", ["none", "key", "partition"])
    async def test_32_workers_above_a_nacked_offset_do_not_wait_for_each_other(
        self, stage: Stage, ordering: Any
    ) -> None:
        stage.send(2000)
        handled: set[str] = set()

        async def handler(message: Message) -> None:
            if message.offset == 0 and message.attempt < 3:
                raise Retry(delay=2)

            handled.add(message.text())

        async with (
            stage.consumer(max_in_flight=40, prefetch=8, commit_every=1) as consumer,
            anyio.create_task_group() as group,
        ):
            await in_background(group, lambda: consumer.run(handler, concurrency=32, ordering=ordering))
            await until(lambda: len(handled) == 2000, at_most=100)
            consumer.stop()

        assert stage.committed() == 2000


class TestDurable:
    async def test_it_returns_when_the_broker_has_it(self, either: Stage) -> None:
        either.send(3)
        async with either.consumer(commit_interval=3600) as consumer:
            first, second, third = await take(consumer, 3)
            assert await first.ack(durable=True) is AckResult.DURABLE
            assert consumer.statistics().uncommitted == 0
            if either.kind == "log":
                assert either.committed() == 1

            # Above an unsettled message: the checkpoint says so.
            assert await third.ack(durable=True) is AckResult.DURABLE
            assert await third.ack(durable=True) is AckResult.DURABLE
            assert await second.ack(durable=True) is AckResult.DURABLE

        async with either.consumer() as consumer:
            with pytest.raises(TimeoutError):
                await consumer.receive(100)

    async def test_it_is_soon(self, either: Stage) -> None:
        either.send(2)
        async with either.consumer(commit_interval=3600) as consumer:
            first, _ = await take(consumer, 2)
            start = anyio.current_time()
            await first.ack(durable=True)
            assert anyio.current_time() - start < 0.1

    async def test_many_who_wait_share_a_commit(self, either: Stage) -> None:
        either.send(100)
        async with either.consumer(commit_interval=3600) as consumer, anyio.create_task_group() as group:
            results = [await in_background_now(group, m.ack, True) for m in await take(consumer, 100)]
            await passes(1)
            assert [result for (result,) in results] == [AckResult.DURABLE] * 100

        assert settling_calls(either) <= 3

    @pytest.mark.parametrize("kind", ["hang", "refused"])
    async def test_it_is_pending_when_the_broker_does_not_confirm_in_time(self, either: Stage, kind: Any) -> None:
        either.plan.breaks("source.commit", "source.settle", kind=kind)
        either.send(2)
        async with either.consumer(commit_timeout=7) as consumer:
            first, _ = await take(consumer, 2)
            start = anyio.current_time()
            assert await first.ack(durable=True) is AckResult.PENDING
            assert anyio.current_time() - start == pytest.approx(7, abs=0.1)
            either.plan.heals()
            await passes(100)
            assert consumer.statistics().uncommitted == 0
            assert await first.ack(durable=True) is AckResult.DURABLE

    async def test_it_does_not_wait_for_another_message_where_there_is_no_room(self) -> None:
        stage = Stage(checkpoint_room=0)
        stage.send(2)
        async with stage.consumer(commit_timeout=7) as consumer, anyio.create_task_group() as group:
            first, second = await take(consumer, 2)
            assert await second.ack(durable=True) is AckResult.PENDING
            waiting = await in_background_now(group, second.ack, True)
            await passes(1)
            assert not waiting
            await first.ack()
            await passes(1)
            assert waiting == [AckResult.DURABLE]

        stage.close()

    async def test_it_raises_when_the_partition_is_lost(self, stage: Stage) -> None:
        stage.plan.breaks("source.commit", kind="hang")
        stage.send(3)
        async with stage.consumer() as consumer, anyio.create_task_group() as group:
            first, second, third = await take(consumer, 3)
            waiting = await in_background(group, first.ack, True)
            stage.plan.heals()
            stage.broker.expire("g")
            await passes(15)
            assert [type(result) for result in waiting] == [StalePartition]
            with pytest.raises(StalePartition, match=r"t\[0\]"):
                await second.ack(durable=True)

            assert await third.ack() is AckResult.STALE

    async def test_what_the_last_commit_wrote_is_durable_although_the_consumer_has_left(self) -> None:
        stage = Stage(checkpoint_room=0)
        stage.send(2)
        async with stage.consumer() as consumer, anyio.create_task_group() as group:
            first, second = await take(consumer, 2)
            waiting = await in_background_now(group, second.ack, True)
            await passes(0.51)
            await first.ack()
            await consumer.close()

        assert stage.committed() == 2
        assert waiting == [AckResult.DURABLE]
        assert await second.ack(durable=True) is AckResult.DURABLE
        async with stage.consumer() as consumer:
            assert await take_all(consumer) == []

        stage.close()

    async def test_so_is_what_a_queue_was_told_when_it_left(self, queue: Stage) -> None:
        queue.plan = Plan(Fault("source.settle", "reply_late", seconds=2))
        queue.send(2)
        async with queue.consumer(commit_interval=3600) as consumer, anyio.create_task_group() as group:
            first, second = await take(consumer, 2)
            waiting = await in_background_now(group, first.ack, True)
            await passes(1)
            await second.ack()
            await consumer.close()

        assert waiting == [AckResult.DURABLE]
        assert await second.ack(durable=True) is AckResult.DURABLE

    async def test_a_lost_lease_is_stale(self, queue: Stage, caplog: pytest.LogCaptureFixture) -> None:
        queue.plan.breaks("source.extend")
        queue.send(3)
        with caplog.at_level(logging.ERROR):
            async with queue.consumer() as consumer:
                first, second, third = await take(consumer, 3)
                await third.ack(durable=True)
                await passes(40)
                with pytest.raises(StalePartition):
                    await first.ack(durable=True)

                queue.plan.heals()
                await passes(20)
                assert await second.ack() is AckResult.STALE

    async def test_a_batch_is_durable_as_a_whole(self, either: Stage) -> None:
        either.send(50)
        async with either.consumer(commit_interval=3600) as consumer:
            batch = await consumer.receive_batch(20)
            assert await batch.ack(durable=True) is AckResult.DURABLE
            assert await batch.ack() is AckResult.DUPLICATE
            assert await batch.ack(durable=True) is AckResult.DURABLE
            if either.kind == "log":
                assert either.committed() == 20

    async def test_a_durable_batch_of_which_one_lease_was_lost_is_stale(self, queue: Stage) -> None:
        queue.send(3)
        async with queue.consumer() as consumer:
            batch = await consumer.receive_batch(3)
            queue.broker.end_leases("g", "t", [batch[0].payload])
            with pytest.raises(StalePartition):
                await batch.ack(durable=True)

    async def test_a_durable_ack_of_a_retry_is_durable(self, either: Stage) -> None:
        either.send(2)
        async with either.consumer(retry=RetryPolicy(initial=1)) as consumer:
            first, _ = await take(consumer, 2)
            await first.nack()
            again = await consumer.receive(20)
            assert await again.ack(durable=True) is AckResult.DURABLE
            assert either.kind == "queue" or either.committed() == 1

    async def test_a_cancelled_wait_has_settled_the_message(self, either: Stage) -> None:
        either.plan = Plan(Fault("source.commit", "hang", seconds=3), Fault("source.settle", "hang", seconds=3))
        either.send(2)
        async with either.consumer() as consumer:
            first, _ = await take(consumer, 2)
            with anyio.move_on_after(1):
                await first.ack(durable=True)

            assert await first.ack() is AckResult.DUPLICATE
            await passes(5)
            assert consumer.statistics().uncommitted == 0


async def in_background_now(group: anyio.abc.TaskGroup, call: Any, *arguments: object) -> list[Any]:
    """Starts a call beside the test without waiting for it to come anywhere."""
    outcome: list[Any] = []

    async def record() -> None:
        outcome.append(await call(*arguments))

    group.start_soon(record)
    return outcome
