"""Promise 11: after a partition is lost no late ack moves its position, and the caller is told."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from typing import Any

import anyio
import pytest

from rustmq_sdk import (
    AckResult,
    ConsumerStateError,
    Message,
    RetryPolicy,
    StalePartition,
    TopicPartition,
    TransientDriverError,
)
from rustmq_sdk._core import ownership
from rustmq_sdk.testing import Fault
from rustmq_sdk.values import Checkpoint
from tests.promises.stage import (
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


def steal(queue: Stage, *texts: str) -> None:
    """Somebody else has these messages from now on."""
    queue.broker.end_leases("g", "t", [text.encode() for text in texts], again=False)


class TestLost:
    async def test_every_way_of_settling_answers_stale(self, stage: Stage) -> None:
        stage.send(10)
        async with stage.consumer() as consumer:
            messages = await take(consumer, 4)
            batch = await consumer.receive_batch(3)
            await messages[0].ack()
            await messages[1].nack(delay=1000)
            stage.broker.expire("g")
            await passes(0.5)
            assert await messages[2].ack() is AckResult.STALE
            assert await messages[3].nack() is AckResult.STALE
            assert await messages[3].reject() is AckResult.STALE
            assert await batch.ack() is AckResult.STALE
            with pytest.raises(StalePartition):
                await messages[2].ack(durable=True)

            with pytest.raises(StalePartition):
                await batch.ack(durable=True)

    async def test_no_late_ack_moves_the_position(self, stage: Stage) -> None:
        stage.send(10)
        async with stage.consumer() as consumer:
            messages = await take(consumer, 10)
            await ack(*messages[:2])
            await consumer.commit()
            stage.broker.expire("g")
            await ack(*messages[2:])  # it does not know yet
            await passes(1)
            await ack(*messages[2:])
            await passes(10)
            assert stage.committed() == 2
            assert offsets(await take_all(consumer)) == list(range(2, 10))

    async def test_a_commit_in_flight_when_it_is_lost_claims_nothing(self, stage: Stage) -> None:
        stage.plan = Plan(Fault("source.commit", "hang", 1, seconds=5))
        stage.send(10)
        async with stage.consumer() as consumer, anyio.create_task_group() as group:
            await ack(*(await take(consumer, 10)))
            outcome = await in_background(group, consumer.commit)
            stage.broker.expire("g")
            await passes(10)
            assert [type(result) for result in outcome] == [StalePartition]
            assert stage.committed() is None
            assert await handle_all(consumer) == numbered(10)

    async def test_what_was_buffered_is_not_handed_out(self, stage: Stage) -> None:
        stage.create(2)
        stage.send(10, partition=0)
        stage.send(10, partition=1)
        async with stage.consumer() as consumer:
            await ack(*(await take(consumer, 1)))
            async with stage.consumer() as other:
                await passes(1)
                mine, others = await take_all(consumer), await take_all(other)

            (moved,) = {message.partition for message in others}
            assert moved not in {message.partition for message in mine}
            assert len(mine) + len(others) == 19

    async def test_an_old_handle_does_not_settle_the_new_delivery(self, stage: Stage) -> None:
        stage.send(3)
        async with stage.consumer() as consumer:
            old = await take(consumer, 3)
            stage.broker.expire("g")
            new = await take(consumer, 3)
            assert {await message.ack() for message in old} == {AckResult.STALE}
            await passes(5)
            assert stage.committed() is None
            await ack(*new)
            await passes(5)
            assert stage.committed() == 3

    async def test_fences_grow_with_every_owner(self, stage: Stage) -> None:
        stage.send(1)
        fences = []
        for _ in range(3):
            async with stage.consumer() as consumer:
                (message,) = await take(consumer, 1)
                fences.append(message.fence)
                await consumer.seek("t", 0, 0)
                (message,) = await take(consumer, 1)
                fences.append(message.fence)

        assert fences == sorted(set(fences), key=lambda fence: fence or 0)

    async def test_a_seek_fences_as_well(self, stage: Stage) -> None:
        stage.send(10)
        async with stage.consumer() as consumer:
            messages = await take(consumer, 10)
            await ack(*messages[:5])
            await messages[5].nack(delay=1)
            await consumer.seek("t", 0, 2)
            assert {await message.ack() for message in messages[6:]} == {AckResult.STALE}
            again = await take_all(consumer)
            assert offsets(again) == list(range(2, 10))
            assert {message.attempt for message in again} == {1}
            await passes(2)
            assert stage.committed() == 2

    async def test_a_seek_that_leaves_no_fence_to_the_next_owner_is_refused_and_moves_nothing(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ownership, "RESTARTS", 4)
        stage.create(2)
        stage.send(2, partition=1)
        fences: list[int] = []
        async with stage.consumer() as consumer:
            for _ in range(3):
                fences.append((await consumer.receive(10)).fence or 0)
                await consumer.seek("t", 1, 0)

            message = await consumer.receive(10)
            fences.append(message.fence or 0)
            with pytest.raises(ConsumerStateError, match=r"t\[1\] was moved 3 times .* enter another one"):
                await consumer.seek_all(0)

            assert await message.ack(durable=True) is AckResult.DURABLE
            for _ in range(3):
                await consumer.seek("t", 0, 0)

        async with stage.consumer() as consumer:
            fences.append((await consumer.receive(10)).fence or 0)

        assert fences == sorted(set(fences))

    async def test_after_the_consumer_has_left_its_handles_are_stale(self, either: Stage) -> None:
        either.send(3)
        async with either.consumer() as consumer:
            first, second, third = await take(consumer, 3)
            await first.ack()

        assert await second.ack() is AckResult.STALE
        assert await third.nack() is AckResult.STALE
        with pytest.raises(StalePartition):
            await third.ack(durable=True)

    async def test_a_deleted_topic_is_lost(self, either: Stage) -> None:
        either.send(5)
        async with either.consumer() as consumer:
            messages = await take(consumer, 5)
            either.broker.delete_topic("t")
            await passes(1)
            assert await messages[0].ack() is AckResult.STALE
            either.send(["anew"])
            assert texts(await take_all(consumer)) == ["anew"]

    async def test_observers_hear_of_it_and_why(self, stage: Stage) -> None:
        heard: list[tuple[list[TopicPartition], list[TopicPartition], str]] = []

        class Observer:
            def on_rebalanced(
                self, assigned: Collection[TopicPartition], lost: Collection[TopicPartition], reason: str
            ) -> None:
                heard.append((list(assigned), list(lost), reason))

        stage.send(1)
        async with stage.client() as client, client.consumer("t", group="g", observers=[Observer()]) as consumer:
            await take(consumer, 1)
            stage.broker.expire("g")
            await passes(1)

        assert heard == [([TP], [], "joined"), ([], [TP], "expired"), ([TP], [], "joined")]

    async def test_an_ack_that_comes_before_the_loss_is_counted_exactly(self, stage: Stage) -> None:
        stage.send(10)
        async with stage.consumer() as consumer:
            messages = await take(consumer, 10)
            await ack(*messages[:3])
            stage.broker.expire("g")
            await passes(1)
            await ack(*messages[3:])
            assert consumer.statistics().acked == 3


class TestRevoked:
    async def test_it_waits_for_running_handlers_and_commits_what_they_settled(self, stage: Stage) -> None:
        stage.create(2)
        stage.send(4, partition=0)
        stage.send(4, partition=1)
        handled: list[tuple[int | None, int | None]] = []

        async def handler(message: Message) -> None:
            await passes(6)
            handled.append((message.partition, message.offset))

        async def work(consumer: Any) -> None:
            await consumer.run(handler, concurrency=8, ordering="none")

        async with stage.consumer() as first, anyio.create_task_group() as group:
            await in_background(group, work, first)
            await passes(1)
            async with stage.consumer() as second:
                await in_background(group, work, second)
                await passes(60)
                first.stop()
                second.stop()

        assert sorted(handled) == [(p, o) for p in (0, 1) for o in range(4)]  # nothing ran twice
        assert (stage.committed(0), stage.committed(1)) == (4, 4)

    async def test_nothing_new_is_handed_out_meanwhile(self, stage: Stage) -> None:
        stage.send(10)
        async with stage.consumer() as consumer:
            messages = await take(consumer, 3)
            stage.broker.rebalance("g")
            await passes(1)
            with pytest.raises(TimeoutError):
                await consumer.receive(5)

            assert "rebalancing" in [reason.code for reason in consumer.health().reasons]
            await ack(*messages)
            assert await handle_all(consumer) == numbered(7, 3)

    async def test_health_says_for_how_long_the_group_shares_out_its_partitions_and_a_line_that_it_takes_long(
        self, stage: Stage, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        stage.send(10)
        async with stage.consumer(lease=40) as consumer:
            await ack(*await take(consumer, 3))
            for _ in range(2):
                stage.plan.breaks("source.committed")  # the partition is given up, and does not come back yet
                stage.broker.rebalance("g")
                await passes(4)
                assert _rebalancing_lines(caplog) == []
                await passes(8)
                (reason,) = consumer.health().reasons
                assert reason.code == "rebalancing"
                assert "every member" in reason.text
                assert reason.since == pytest.approx(12, abs=0.1)
                assert consumer.health().ok
                (line,) = _rebalancing_lines(caplog)
                assert line.startswith("rebalancing for 5 s: partitions were given back; waiting for the group")
                assert line.endswith("lease=40 s")
                stage.plan.heals()
                await passes(10)
                assert not consumer.health().reasons
                caplog.clear()

    async def test_it_waits_no_longer_than_its_budget(self, stage: Stage) -> None:
        stage.create(2)
        stage.send(5, partition=0)
        stage.send(5, partition=1)
        async with stage.consumer(close_timeout=10) as consumer:
            held = await take(consumer, 10)
            await held[0].ack()
            start = anyio.current_time()
            async with stage.consumer() as other:
                again = await other.receive(60)
                assert 7 <= anyio.current_time() - start <= 11
                late = [message for message in held[1:] if message.partition == again.partition]
                assert {await message.ack() for message in late} == {AckResult.STALE}

    async def test_a_message_that_waits_for_its_retry_is_not_waited_for(self, stage: Stage) -> None:
        stage.send(3)
        async with stage.consumer(retry=RetryPolicy(initial=500, jitter="none", max_delay=500)) as consumer:
            messages = await take(consumer, 3)
            await ack(*messages[1:])
            await messages[0].nack()
            start = anyio.current_time()
            stage.broker.rebalance("g")
            await passes(1)
            assert consumer.assigned_partitions == {TP}
            assert anyio.current_time() - start < 2

    async def test_an_eager_rebalance_that_gives_it_back_adopts_what_runs(self, stage: Stage) -> None:
        stage.send(10)
        seen: list[str] = []

        async def handler(message: Message) -> None:
            seen.append(message.text())
            await passes(300)  # longer than the budget

        async with stage.consumer() as consumer, anyio.create_task_group() as group:
            await in_background(group, lambda: consumer.run(handler, concurrency=4))
            await passes(1)
            for _ in range(3):
                stage.broker.rebalance("g")
                await passes(30)

            await until(lambda: len(seen) == 10, at_most=2000, step=1)
            await passes(310)
            consumer.stop()

        assert seen == numbered(10)  # not run twice
        assert stage.committed() == 10

    async def test_adopted_retries_come_back_once_and_with_their_attempt(self, stage: Stage) -> None:
        stage.send(5)
        async with stage.consumer(retry=RetryPolicy(initial=60, jitter="none")) as consumer:
            for message in await take(consumer, 5):
                await message.nack()

            stage.broker.rebalance("g")
            again = await take_all(consumer, quiet=100)
            assert sorted(texts(again)) == numbered(5)
            assert {message.attempt for message in again} == {2}

    async def test_adopted_messages_can_be_settled_and_committed(self, stage: Stage) -> None:
        stage.send(10)
        async with stage.consumer() as consumer:
            messages = await take(consumer, 6)
            stage.broker.rebalance("g")
            await passes(40)
            assert [await message.ack() for message in messages] == [AckResult.RECORDED] * 6
            assert await handle_all(consumer) == numbered(4, 6)
            await passes(3)
            assert stage.committed() == 10

    async def test_a_commit_without_an_answer_is_not_taken_for_somebody_elses(self, stage: Stage) -> None:
        stage.send(10)
        async with stage.consumer(auto_commit=False, commit_timeout=1) as consumer:
            messages = await take(consumer, 10)
            await ack(*messages[:4])
            await consumer.commit()
            await ack(messages[4])
            stage.plan.breaks("source.commit", kind="reply_lost")
            with pytest.raises(TransientDriverError):
                await consumer.commit()

            assert stage.committed() == 5, "it was made all the same"
            stage.broker.rebalance("g")
            assert await take_all(consumer, quiet=60) == [], "they are in our hands"
            stage.plan.heals()
            assert [await message.ack() for message in messages[5:]] == [AckResult.RECORDED] * 5

    async def test_an_assignment_that_fails_half_way_is_made_again_as_a_whole(self, stage: Stage) -> None:
        stage.create(2)
        stage.send(3, partition=0)
        async with stage.consumer() as consumer:
            held = await take(consumer, 3)
            partitions = consumer._running.partitions
            kept, gone = (partitions.ownership.get(TopicPartition("t", number)) for number in (0, 1))
            assert kept is not None
            assert gone is not None
            generation = partitions.ownership.generation(kept.assignment.tp)
            tps = [kept.assignment.tp, gone.assignment.tp]
            await partitions.revoking([kept.assignment], 1.0)
            await partitions.lost([gone.assignment])
            # One comes back, and nobody says where the other begins.
            stage.plan.breaks("source.start_offsets")
            with pytest.raises(TransientDriverError):
                await partitions.assigned(tps, generation)

            stage.plan.heals()
            await partitions.assigned(tps, generation)
            assert partitions.ownership.get(tps[0]) is kept
            assert [await message.ack() for message in held] == [AckResult.RECORDED] * 3

    async def test_a_stale_commit_after_a_revoke_moves_nothing(self, stage: Stage) -> None:
        stage.plan = Plan(Fault("source.commit", "hang", 1, seconds=20))
        stage.create(2)
        stage.send(5, partition=0)
        stage.send(5, partition=1)
        async with stage.consumer(close_timeout=5, commit_timeout=25) as consumer:
            messages = await take(consumer, 10)
            await ack(*(message for message in messages if message.offset != 4))
            await until(lambda: stage.plan.calls["source.commit"] == 1)
            async with stage.consumer(plan=Plan()) as other:
                again = await take(other, 5)
                await ack(*again)
                await other.commit()
                partition = again[0].partition or 0
                assert stage.committed(partition) == 5
                late = [message for message in messages if message.partition == partition and message.offset == 4]
                assert [await message.ack() for message in late] == [AckResult.STALE]
                await passes(100)
                assert stage.committed(partition) == 5

    async def test_a_seek_while_it_is_revoked_holds_for_whoever_has_it_next(self, stage: Stage) -> None:
        stage.send(5)
        async with stage.consumer() as consumer:
            messages = await take(consumer, 5)
            await ack(*messages[:3])
            await consumer.commit()
            stage.broker.rebalance("g")
            await passes(1)
            await consumer.seek("t", 0, 1)
            assert {await message.ack() for message in messages[3:]} == {AckResult.STALE}
            assert await handle_all(consumer) == numbered(4, 1)
            await passes(5)
            assert stage.committed() == 5
            assert consumer.assigned_partitions == {TP}

    async def test_nothing_is_handed_out_after_a_seek_until_it_is_known_whose_it_is(self, stage: Stage) -> None:
        stage.send(5)
        stage.plan = Plan(Fault("source.commit", "reply_late", 1, seconds=3))
        async with stage.consumer() as consumer, anyio.create_task_group() as group:
            await take(consumer, 5)
            partitions = consumer._running.partitions
            (ledger,) = partitions.ownership.current()
            # By a driver that goes on fetching until this call returns.
            await in_background(group, partitions.revoking, [ledger.assignment], 20.0)
            await consumer.seek("t", 0, 1)
            with pytest.raises(TimeoutError):
                await consumer.receive(2)

            await passes(5)
            assert stage.committed() == 1
            assert not consumer.assigned_partitions

    async def test_leaving_does_not_wait_for_a_budget(self, stage: Stage) -> None:
        stage.send(5)
        async with stage.consumer() as consumer:
            await take(consumer, 5)
            stage.broker.rebalance("g")
            await passes(1)
            start = anyio.current_time()

        assert anyio.current_time() - start < 3


class TestMovedFromOutside:
    """Somebody changes the committed position of a group that is alive."""

    async def test_a_position_that_was_deleted_is_obeyed_at_the_next_rebalance(
        self, stage: Stage, caplog: pytest.LogCaptureFixture
    ) -> None:
        stage.send(10)
        async with stage.consumer() as consumer:
            await ack(*(await take(consumer, 5)))
            await consumer.commit()
            running = await consumer.receive(5)
            await in_the_middle_of_a_rebalance(stage, lambda committed: committed.pop(TP))
            assert await running.ack() is AckResult.STALE
            assert "its committed position is gone, and this consumer has written 5" in caplog.text
            assert await handle_all(consumer) == numbered(10)

        assert stage.committed() == 10

    @pytest.mark.parametrize("offset", [2, 8])
    async def test_so_is_one_that_was_moved(self, stage: Stage, offset: int, caplog: pytest.LogCaptureFixture) -> None:
        stage.send(10)
        async with stage.consumer() as consumer:
            await ack(*(await take(consumer, 5)))
            await consumer.commit()
            running = await consumer.receive(5)
            await in_the_middle_of_a_rebalance(stage, lambda committed: committed.update({TP: Checkpoint(offset)}))
            assert await running.ack() is AckResult.STALE
            assert f"its committed position is {offset}, and this consumer has written 5" in caplog.text
            assert await handle_all(consumer) == numbered(10 - offset, offset)

    async def test_a_position_that_the_consumer_found_and_did_not_write_counts_as_well(self, stage: Stage) -> None:
        stage.send(10)
        async with stage.consumer() as consumer:
            await ack(*(await take(consumer, 5)))

        async with stage.consumer() as consumer:
            running = await consumer.receive(5)
            await in_the_middle_of_a_rebalance(stage, lambda committed: committed.pop(TP))
            assert await running.ack() is AckResult.STALE
            assert await handle_all(consumer) == numbered(10)

    async def test_so_is_one_that_was_moved_back_to_where_this_consumer_has_been(self, stage: Stage) -> None:
        stage.send(10)
        async with stage.consumer() as consumer:
            for _ in range(2):
                await ack(*(await take(consumer, 4)))
                await consumer.commit()

            running = await consumer.receive(5)
            await in_the_middle_of_a_rebalance(stage, lambda committed: committed.update({TP: Checkpoint(4)}))
            assert await running.ack() is AckResult.STALE
            assert await handle_all(consumer) == numbered(6, 4)

    async def test_where_nothing_was_ever_committed_nothing_can_have_been_deleted(
        self, stage: Stage, caplog: pytest.LogCaptureFixture
    ) -> None:
        stage.send(10)
        async with stage.consumer() as consumer:
            running = await consumer.receive(5)
            await in_the_middle_of_a_rebalance(stage, lambda committed: None)
            assert await running.ack() is AckResult.RECORDED
            assert await handle_all(consumer) == numbered(9, 1)
            assert "its committed position" not in caplog.text


async def in_the_middle_of_a_rebalance(
    stage: Stage, change: Callable[[dict[TopicPartition, Checkpoint]], object]
) -> None:
    """Between the last commit before a rebalance and the look at the position after it."""
    stage.broker.rebalance("g")
    change(stage.broker.group("g").committed)
    await passes(30)


class TestLeases:
    async def test_a_lost_lease_makes_its_message_stale_and_it_comes_again(self, queue: Stage) -> None:
        queue.plan.breaks("source.extend")
        queue.send(2)
        async with queue.consumer() as consumer:
            first, second = await take(consumer, 2)
            await first.ack()
            await passes(2)
            again = await consumer.receive(60)
            assert (again.text(), again.attempt) == (second.text(), 2)
            queue.plan.heals()
            await passes(20)
            assert await second.ack() is AckResult.STALE
            assert await again.ack(durable=True) is AckResult.DURABLE
            assert await take_all(consumer, quiet=60) == []

    @pytest.mark.parametrize("paused", [False, True])
    async def test_a_message_whose_lease_was_lost_before_it_was_handed_out_is_not_handed_out(
        self, queue: Stage, paused: bool
    ) -> None:
        queue.send(["first", "lost", "fine", "lost too"])
        async with queue.consumer() as consumer:
            assert texts(await take(consumer, 1)) == ["first"]
            if paused:
                consumer.pause_partitions([("t", None)])

            steal(queue, "lost", "lost too")
            await passes(15)
            consumer.resume_partitions([("t", None)])
            queue.send(["after"])
            messages = await take_all(consumer, quiet=20)
            assert texts(messages) == ["fine", "after"]
            await ack(*messages)
            assert consumer.statistics().in_flight == 1
            assert consumer.statistics().buffered == 0

    async def test_nor_is_a_retry_that_lost_its_lease_while_it_waited_in_the_buffer(self) -> None:
        queue = Stage("queue", without="delayed_nack")
        queue.send(["lost", "fine"])
        async with queue.consumer() as consumer:
            for message in await take(consumer, 2):
                await message.nack(delay=0)

            consumer.pause_partitions([("t", None)])
            await passes(5)
            steal(queue, "lost")
            await passes(15)
            consumer.resume_partitions([("t", None)])
            assert texts(await take_all(consumer, quiet=20)) == ["fine"]

        queue.close()

    async def test_a_stop_for_a_message_whose_lease_was_lost_meanwhile_delivers_nothing(self, queue: Stage) -> None:
        queue.send(1)
        async with queue.consumer() as consumer:
            await (await consumer.receive(5)).reject()
            steal(queue, "m0")
            await passes(15)
            consumer.resume_partitions([("t", None)])
            assert await take_all(consumer, quiet=30) == []

    async def test_a_running_message_keeps_its_lease_as_long_as_it_takes(self, queue: Stage) -> None:
        queue.send(3)
        async with queue.consumer() as consumer:
            messages = await take(consumer, 1)  # the others stay in the buffer
            assert await take_all(consumer, quiet=200) != []
            await passes(1000)
            assert await messages[0].ack(durable=True) is AckResult.DURABLE

    async def test_a_renewal_that_fails_twice_loses_nothing(self, queue: Stage) -> None:
        queue.plan = Plan(Fault("source.extend", "refused", 1), Fault("source.extend", "hang", 2, seconds=9))
        queue.send(1)
        async with queue.consumer() as consumer:
            (message,) = await take(consumer, 1)
            await passes(200)
            assert await message.ack(durable=True) is AckResult.DURABLE

    async def test_nor_do_two_that_are_never_answered(self, queue: Stage) -> None:
        queue.plan = Plan(Fault("source.extend", "hang", 1), Fault("source.extend", "hang", 2))
        queue.send(1)
        async with queue.consumer() as consumer:
            (message,) = await take(consumer, 1)
            await passes(200)
            assert await message.ack(durable=True) is AckResult.DURABLE


def _rebalancing_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if getattr(record, "event", "") == "rebalancing"]
