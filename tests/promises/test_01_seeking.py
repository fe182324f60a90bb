"""Promise 1, where the user moves: from there on every message is delivered, and a place beyond the end is refused."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import anyio
import pytest

from rustmq_sdk import (
    AckResult,
    ConfigurationError,
    ConsumerClosed,
    ConsumerStateError,
    PartitionStopped,
    TopicPartition,
    TransientDriverError,
    Unsupported,
)
from rustmq_sdk.testing import Fault
from tests.promises.stage import (
    DLQ,
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
)


@pytest.mark.virtual_time
class TestSeeking:
    async def test_a_seek_back_delivers_again_from_there(self, stage: Stage) -> None:
        stage.send(10)
        async with stage.consumer() as consumer:
            await ack(*(await take(consumer, 10)))
            await passes(2)
            assert stage.committed() == 10
            await consumer.seek("t", 0, 3)
            assert await consumer.position("t", 0) == 3
            await passes(2)
            assert stage.committed() == 3
            assert offsets(await take(consumer, 2)) == [3, 4]
            assert await consumer.position("t", 0) == 5

    async def test_all_can_be_moved_before_the_group_has_said_what_that_is(self, stage: Stage) -> None:
        stage.send(10)
        async with stage.consumer() as consumer:
            await consumer.seek_all(7)
            assert await handle_all(consumer) == ["m7", "m8", "m9"]

    @pytest.mark.parametrize("call", ["seek", "seek_to_timestamp", "position", "committed_offset"])
    async def test_a_partition_can_be_named_before_the_group_has_said_that_it_is_ours(
        self, stage: Stage, call: str
    ) -> None:
        stage.send(5, timestamp=1_000)
        stage.send(5, timestamp=2_000)
        arguments = {"seek": (7,), "seek_to_timestamp": (datetime.fromtimestamp(2, UTC),)}.get(call, ())
        async with stage.consumer() as consumer:
            assert not consumer.assigned_partitions
            answer = await getattr(consumer, call)("t", 0, *arguments)
            assert answer == (0 if call == "position" else None)
            first = {"seek": 7, "seek_to_timestamp": 5}.get(call, 0)
            assert await handle_all(consumer) == numbered(10 - first, first)

    async def test_before_the_first_assignment_a_partition_that_is_not_ours_is_found_out_in_time(
        self, stage: Stage
    ) -> None:
        stage.send(1)
        async with stage.consumer() as consumer:
            with pytest.raises(ConsumerStateError, match=r"t\[7\] is not assigned"):
                await consumer.seek("t", 7, 0)

        async with stage.consumer("nowhere") as consumer:
            begun = anyio.current_time()
            for seek in (consumer.seek("nowhere", 0, 0), consumer.position("nowhere", 0)):
                with pytest.raises(ConsumerStateError, match="no partition was assigned within commit_timeout=10 s"):
                    await seek

            assert anyio.current_time() - begun == pytest.approx(20, abs=0.1)
            await consumer.close()
            with pytest.raises(ConsumerClosed, match=r"seek\(\): the consumer was closed before"):
                await consumer.seek("nowhere", 0, 0)

            assert anyio.current_time() - begun < 25

    @pytest.mark.parametrize("partition", ["0", None, -1, 0.0, True])
    async def test_what_is_no_number_of_a_partition_is_refused_by_name(self, stage: Stage, partition: Any) -> None:
        stage.send(1)
        async with stage.consumer() as consumer:
            await take(consumer, 1)
            for call in (
                consumer.seek("t", partition, 0),
                consumer.seek_to_timestamp("t", partition, 0),
                consumer.position("t", partition),
                consumer.committed_offset("t", partition),
            ):
                with pytest.raises(ConfigurationError, match="expected a whole number of at least 0") as caught:
                    await call

                assert caught.value.field == "partition"

            with pytest.raises(ConfigurationError, match="expected a topic's name"):
                await consumer.position(0, 0)  # type: ignore[arg-type]

    async def test_without_a_partition_there_is_nothing_to_move_and_that_is_said(self, stage: Stage) -> None:
        async with stage.consumer("nowhere") as consumer:
            with pytest.raises(ConsumerStateError, match="no partition was assigned within commit_timeout=10 s"):
                await consumer.seek_all(0)

    async def test_a_seek_forward_skips_on_the_users_word(self, stage: Stage) -> None:
        stage.send(10)
        async with stage.consumer() as consumer:
            await take(consumer, 1)
            await consumer.seek("t", 0, 8)
            assert await handle_all(consumer) == ["m8", "m9"]

        assert stage.committed() == 10

    @pytest.mark.parametrize("target", [0, 12])
    async def test_a_seek_outlives_a_commit_that_is_answered_after_it(self, stage: Stage, target: int) -> None:
        stage.send(20)
        stage.plan = Plan(Fault("source.commit", "reply_late", seconds=3))
        stage.plan.breaks("source.commit")
        async with stage.consumer() as consumer:
            await ack(*(await take(consumer, 10)))
            await passes(2)
            assert stage.committed() == 10, "and nobody was told"
            await consumer.seek("t", 0, target)
            await passes(4)
            # What the broker has is our own doing, and no order of an operator's.
            stage.broker.rebalance("g")
            await passes(1)
            assert offsets(await take(consumer, 1)) == [target]

    async def test_a_seek_is_committed_at_the_exit_even_if_nothing_is_received(self, stage: Stage) -> None:
        stage.send(10)
        async with stage.consumer() as consumer:
            await ack(*(await take(consumer, 10)))
            await consumer.seek("t", 0, 2)

        assert stage.committed() == 2

    async def test_seek_all_and_timestamps(self, stage: Stage) -> None:
        stage.create(2)
        for partition in range(2):
            stage.send(3, partition=partition, timestamp=1_000)
            stage.send(3, partition=partition, timestamp=2_000)

        async with stage.consumer() as consumer:
            assert len(await take_all(consumer)) == 12
            await consumer.seek_all_to_timestamp(1_500)
            assert sorted(texts(await take_all(consumer))) == ["m3", "m3", "m4", "m4", "m5", "m5"]
            await consumer.seek_to_timestamp("t", 1, datetime.fromtimestamp(1.5, UTC))
            assert offsets(await take_all(consumer)) == [3, 4, 5]
            await consumer.seek_all(5)
            assert offsets(await take_all(consumer)) == [5, 5]

    async def test_many_seeks_while_a_commit_hangs_are_survived(self, stage: Stage) -> None:
        stage.send(5)
        stage.plan.breaks("source.commit", kind="hang")
        async with stage.consumer(commit_interval=0.1) as consumer:
            await ack(*(await take(consumer, 5)))
            await passes(1)
            for _ in range(10):
                await consumer.seek("t", 0, 0)
                await ack(*(await take(consumer, 5)))

            stage.plan.heals()
            await passes(30)
            assert stage.committed() == 5

    async def test_a_partition_that_is_not_ours_cannot_be_sought(self, stage: Stage) -> None:
        stage.send(1)
        async with stage.consumer() as consumer:
            await take(consumer, 1)
            for call in (consumer.seek("t", 7, 0), consumer.position("t", 7), consumer.committed_offset("t", 7)):
                with pytest.raises(ConsumerStateError, match=r"t\[7\] is not assigned"):
                    await call

    async def test_position_committed_offset_and_lag_tell_the_truth(self, stage: Stage) -> None:
        stage.send(10)
        async with stage.consumer() as consumer:
            assert await consumer.committed_offset("t", 0) is None
            messages = await take(consumer, 6)
            await ack(*messages[:2], *messages[4:6])
            await consumer.commit()
            assert await consumer.position("t", 0) == 6
            assert await consumer.committed_offset("t", 0) == 2
            assert await consumer.get_lag() == {TP: 6}

    async def test_a_queue_says_what_it_cannot_do(self, queue: Stage) -> None:
        queue.send(1)
        async with queue.consumer() as consumer:
            await take(consumer, 1)
            for call in (
                consumer.seek("t", 0, 0),
                consumer.seek_to_timestamp("t", 0, 0),
                consumer.position("t", 0),
                consumer.committed_offset("t", 0),
                consumer.get_lag(),
            ):
                with pytest.raises(Unsupported):
                    await call


@pytest.mark.virtual_time
class TestSeekingBeyondTheEnd:
    async def test_it_is_refused_with_the_end_and_what_to_do(self, stage: Stage) -> None:
        stage.send(10)
        async with stage.consumer() as consumer:
            (first,) = await take(consumer, 1)
            with pytest.raises(ConfigurationError) as refused:
                await consumer.seek("t", 0, 11)

            assert str(refused.value) == (
                "offset=11: t[0] ends at offset 10. "
                "Seek to 10 to get what is sent from now on, or lower to get messages again"
            )
            assert (refused.value.field, refused.value.value) == ("offset", 11)
            assert await first.ack() is AckResult.RECORDED
            assert await handle_all(consumer) == numbered(9, 1)
            stage.send(1)
            assert await handle_all(consumer) == ["m10"]

        assert stage.committed() == 11

    async def test_the_end_itself_is_where_the_next_message_comes(self, stage: Stage) -> None:
        stage.send(10)
        async with stage.consumer() as consumer:
            await take(consumer, 1)
            await consumer.seek("t", 0, 10)
            stage.send(2)
            assert await handle_all(consumer) == ["m10", "m11"]

    async def test_seek_all_moves_all_partitions_or_none_and_asks_once(self, stage: Stage) -> None:
        stage.create(3)
        for partition, count in enumerate((5, 9, 5)):
            stage.send(count, partition=partition)

        async with stage.consumer() as consumer:
            held = await take(consumer, 19)
            with pytest.raises(ConfigurationError, match=r"t\[(0|2)\] ends at offset 5"):
                await consumer.seek_all(6)

            assert {await message.ack() for message in held} == {AckResult.RECORDED}
            assert stage.plan.calls["source.end_offsets"] == 1
            await consumer.seek_all(4)
            assert stage.plan.calls["source.end_offsets"] == 2
            assert sorted(texts(await take_all(consumer))) == ["m4", "m4", "m4", "m5", "m6", "m7", "m8"]

    async def test_what_is_delivered_until_the_broker_has_answered_is_of_the_old_position(self, stage: Stage) -> None:
        stage.send(10)
        stage.plan.breaks("source.end_offsets", kind="hang", seconds=2.0)
        async with stage.consumer() as consumer, anyio.create_task_group() as tasks:
            await ack(*await take(consumer, 3))
            outcome = await in_background(tasks, consumer.seek, "t", 0, 8)
            (between,) = await take(consumer, 1)
            assert between.offset == 3
            assert await between.ack() is AckResult.RECORDED
            (held,) = await take(consumer, 1)
            await passes(3.0)
            assert outcome == [None]
            assert await held.ack() is AckResult.STALE
            assert await handle_all(consumer) == ["m8", "m9"]

    async def test_a_broker_that_does_not_say_the_end_moves_nothing(self, stage: Stage) -> None:
        stage.send(10)
        stage.plan.breaks("source.end_offsets", kind="hang")
        async with stage.consumer(commit_timeout=3.0) as consumer:
            await take(consumer, 1)
            began = anyio.current_time()
            with pytest.raises(TransientDriverError, match="partitions end: no answer within commit_timeout=3 s"):
                await consumer.seek("t", 0, 5)

            assert anyio.current_time() - began == pytest.approx(3.0)
            assert offsets(await take_all(consumer)) == list(range(1, 10))

    async def test_one_failure_of_the_question_is_not_the_users(self, stage: Stage) -> None:
        stage.send(10)
        stage.plan = Plan(Fault("source.end_offsets", "refused", 1))
        async with stage.consumer() as consumer:
            await take(consumer, 1)
            await consumer.seek("t", 0, 8)
            assert await handle_all(consumer) == ["m8", "m9"]

    async def test_cancelled_while_it_asks_it_has_moved_nothing(self, stage: Stage) -> None:
        stage.send(10)
        stage.plan.breaks("source.end_offsets", kind="hang")
        async with stage.consumer() as consumer:
            (first,) = await take(consumer, 1)
            with anyio.move_on_after(1.0) as scope:
                await consumer.seek("t", 0, 5)

            assert scope.cancelled_caught
            assert await first.ack() is AckResult.RECORDED
            assert await handle_all(consumer) == numbered(9, 1)

    async def test_a_partition_that_is_lost_while_the_broker_is_asked_is_not_moved(self, stage: Stage) -> None:
        other = TopicPartition("t", 1)
        stage.create(2)
        for partition in range(2):
            stage.send(5, partition=partition)

        stage.plan.breaks("source.end_offsets", kind="hang", seconds=5.0)
        async with stage.consumer() as consumer, anyio.create_task_group() as tasks:
            await ack(*await take(consumer, 10))
            outcomes = [await in_background(tasks, consumer.seek_all, 2)]
            # Whichever is lost, in one of these orders the other one comes first.
            orders = ([TP, other], [other, TP])
            outcomes += [await in_background(tasks, consumer._positions.seek, order, 2) for order in orders]

            async with stage.consumer():
                await passes(4.0)
                (kept,) = consumer.assigned_partitions
                await passes(2.0)
                assert [type(error) for (error,) in outcomes] == [ConsumerStateError] * 3
                assert await consumer.position("t", kept.partition or 0) == 5
                assert [stage.committed(partition) for partition in range(2)] == [5, 5]

    async def test_below_the_start_it_stops_and_says_what_is_gone(self, stage: Stage) -> None:
        stage.send(10)
        stage.broker.truncate("t", 0, 6)
        async with stage.consumer() as consumer:
            await take(consumer, 1)
            await consumer.seek("t", 0, 2)
            with pytest.raises(PartitionStopped, match="offsets 2 to 5 are gone"):
                await consumer.receive(10)

            consumer.resume_partitions([TP])
            assert await handle_all(consumer) == numbered(4, 6)

    async def test_below_the_start_it_is_a_letter_where_that_was_chosen(self, stage: Stage) -> None:
        stage.send(10)
        stage.broker.truncate("t", 0, 6)
        async with stage.consumer(on_lost="dead_letter", dead_letter_topic=DLQ) as consumer:
            await take(consumer, 1)
            await consumer.seek("t", 0, 2)
            assert await handle_all(consumer) == numbered(4, 6)

        (letter,) = stage.letters
        assert "offsets 2 to 5 are gone" in letter.reason

    async def test_a_moment_after_the_last_message_is_the_end(self, stage: Stage) -> None:
        stage.send(5, timestamp=1_000)
        async with stage.consumer() as consumer:
            await take(consumer, 1)
            await consumer.seek_all_to_timestamp(2_000)
            assert await consumer.position("t", 0) == 5
