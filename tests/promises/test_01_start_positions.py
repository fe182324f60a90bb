"""Promise 1, from where: a consumer begins at its group's committed position, or where ``start`` says."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from rustmq_sdk import ConsumerStateError, RetryPolicy, Unsupported
from tests.promises.stage import DLQ, Stage, ack, handle_all, numbered, offsets, passes, take, take_all


@pytest.mark.virtual_time
class TestStartPositions:
    async def test_earliest_reads_from_the_first_message_there_is(self, stage: Stage) -> None:
        stage.send(10)
        stage.broker.truncate("t", 0, 4)
        async with stage.consumer() as consumer:
            assert offsets(await take_all(consumer)) == [4, 5, 6, 7, 8, 9]

    async def test_latest_reads_what_comes_from_now_on(self, stage: Stage) -> None:
        stage.send(10)
        async with stage.consumer(start="latest") as consumer:
            await passes(1)
            stage.send(3)
            assert await handle_all(consumer) == numbered(3, 10)

    async def test_what_comes_while_a_latest_consumer_restarts_is_not_skipped(self, stage: Stage) -> None:
        stage.send(10)
        async with stage.consumer(start="latest"):
            await passes(5)

        stage.send(3)
        async with stage.consumer(start="latest") as consumer:
            assert await handle_all(consumer) == numbered(3, 10)

    @pytest.mark.parametrize("auto_commit", [True, False])
    async def test_where_latest_begins_is_written_at_once(self, stage: Stage, *, auto_commit: bool) -> None:
        """A process that is killed says nothing more, and its successor would begin after what it had in hand."""
        stage.send(10)
        async with stage.consumer(start="latest", auto_commit=auto_commit, commit_interval=60):
            await passes(0.1)
            assert stage.committed() == 10

    async def test_it_is_written_when_the_broker_is_well_again_and_nothing_else_with_it(self, stage: Stage) -> None:
        stage.send(10)
        stage.plan.breaks("source.commit")
        async with stage.consumer(start="latest", auto_commit=False) as consumer:
            await passes(1)
            stage.send(3)
            await ack(*(await take(consumer, 2)))
            stage.plan.heals()
            await passes(120)
            assert stage.committed() == 10, "auto_commit is off"
            await consumer.commit()
            assert stage.committed() == 12

    async def test_who_leaves_before_it_is_written_writes_it(self, stage: Stage) -> None:
        stage.send(10)
        stage.plan.breaks("source.commit")
        async with stage.consumer(start="latest", auto_commit=False):
            await passes(1)
            stage.plan.heals()

        assert stage.committed() == 10

    async def test_of_a_partition_that_was_lost_before_it_was_written_nothing_is_written(self, stage: Stage) -> None:
        stage.send(10)
        stage.plan.breaks("source.commit")
        async with stage.consumer(start="latest", auto_commit=False):
            await passes(1)
            stage.broker.expire("g")
            await passes(5)
            stage.plan.heals()
            calls = stage.plan.calls["source.commit"]
            await passes(60)
            assert stage.plan.calls["source.commit"] - calls <= 2

        assert stage.committed() == 10

    async def test_an_offset_is_where_it_starts(self, stage: Stage) -> None:
        stage.send(10)
        async with stage.consumer(start=6) as consumer:
            assert offsets(await take_all(consumer)) == [6, 7, 8, 9]

    async def test_a_moment_is_where_it_starts(self, stage: Stage) -> None:
        stage.send(3, timestamp=1_000)
        stage.send(3, timestamp=2_000_000)
        async with stage.consumer(start=datetime.fromtimestamp(1500, UTC)) as consumer:
            assert offsets(await take_all(consumer)) == [3, 4, 5]

    async def test_error_refuses_to_guess(self, stage: Stage) -> None:
        stage.send(10)
        with pytest.raises(ConsumerStateError, match=r"^t\[0\]: no committed position in group 'g'"):
            await _live(stage, 1, start="error")

    @pytest.mark.parametrize("start", ["earliest", "latest", "error", 0])
    async def test_a_committed_position_wins_over_all_of_them(self, stage: Stage, start: Any) -> None:
        stage.send(10)
        async with stage.consumer() as consumer:
            await ack(*(await take(consumer, 4)))

        async with stage.consumer(start=start) as consumer:
            assert offsets(await take_all(consumer)) == [4, 5, 6, 7, 8, 9]

    async def test_without_a_group_everything_is_read_and_nothing_is_committed(self, stage: Stage) -> None:
        stage.send(10)
        for _ in range(2):
            async with stage.consumer(group=None) as consumer:
                messages = await take_all(consumer)
                await ack(*messages)
                await passes(10)
                assert offsets(messages) == list(range(10))
                with pytest.raises(Unsupported, match="group"):
                    await consumer.commit()

                with pytest.raises(Unsupported, match="group"):
                    await messages[0].ack(durable=True)

                with pytest.raises(Unsupported, match="group"):
                    await consumer.committed_offset("t", 0)

        assert stage.plan.calls["source.commit"] == 0

    async def test_without_a_group_retries_and_dead_letters_work_as_well(self, stage: Stage) -> None:
        stage.send(2)
        policy = RetryPolicy(max_attempts=2, initial=1, jitter="none")
        async with stage.consumer(group=None, retry=policy, dead_letter_topic=DLQ) as consumer:
            for attempt in (1, 2):
                for message in await take(consumer, 2):
                    assert message.attempt == attempt
                    await message.nack()

            await passes(5)
            assert [letter.payload for letter in stage.letters] == [b"m0", b"m1"]


async def _live(stage: Stage, seconds: float, **options: Any) -> None:
    """A consumer that does nothing for so many seconds."""
    async with stage.consumer(**options):
        await passes(seconds)
