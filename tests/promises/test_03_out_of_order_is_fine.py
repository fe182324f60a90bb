"""Promise 3: what was acked above the watermark is remembered across a restart, as far as there is room."""

from __future__ import annotations

from random import Random

import anyio
import pytest

from rustmq_sdk import AckResult, RetryPolicy
from tests.promises.stage import (
    DLQ,
    Stage,
    ack,
    handle_all,
    numbered,
    offsets,
    passes,
    take,
    take_all,
    until,
)

pytestmark = pytest.mark.virtual_time


async def settle_every_other(stage: Stage, count: int) -> None:
    """Leaves the even offsets of the first ``count`` unsettled."""
    async with stage.consumer() as consumer:
        messages = await take(consumer, count)
        await ack(*messages[1::2])


async def test_what_was_acked_does_not_run_again_after_a_restart(stage: Stage) -> None:
    stage.send(1000)
    await settle_every_other(stage, 1000)
    assert stage.committed() == 0
    async with stage.consumer() as consumer:
        assert await handle_all(consumer) == [f"m{number}" for number in range(0, 1000, 2)]

    async with stage.consumer() as consumer:
        assert await handle_all(consumer) == []
        assert stage.committed() == 1000


@pytest.mark.parametrize("seed", range(8))
async def test_any_order_over_any_number_of_restarts_runs_every_message_once(stage: Stage, seed: int) -> None:
    rng = Random(seed)
    stage.send(300)
    runs: list[int | None] = []
    while len(runs) < 300:
        async with stage.consumer(prefetch=rng.choice([5, 50, 1000]), commit_interval=0.2) as consumer:
            messages = await take(consumer, rng.randint(1, 300 - len(runs)))
            rng.shuffle(messages)
            for message in messages[: rng.randint(1, len(messages))]:
                await message.ack()
                runs.append(message.offset)

            await passes(rng.choice([0.0, 0.3]))

    assert sorted(runs, key=lambda offset: offset or 0) == list(range(300))
    assert stage.committed() == 300


async def test_after_a_crash_only_what_the_last_commit_did_not_cover_runs_again(stage: Stage) -> None:
    stage.send(100)
    with anyio.CancelScope() as process:
        async with stage.consumer() as consumer:
            messages = await take(consumer, 100)
            await ack(*messages[50:90])
            await consumer.commit()
            await ack(*messages[10:20])
            stage.plan.breaks("source.commit", kind="hang")
            process.cancel()

    stage.plan.heals()
    async with stage.consumer() as consumer:
        assert await handle_all(consumer) == [*numbered(50), *numbered(10, 90)]


class TestSmallRoom:
    @pytest.mark.parametrize("room", [0, 8, 20, 30])
    async def test_only_what_does_not_fit_runs_again(self, room: int) -> None:
        stage = Stage(checkpoint_room=room)
        stage.send(400)
        rng = Random(room)
        acked = {offset for offset in range(1, 400) if rng.random() < 0.5}
        async with stage.consumer(prefetch=400) as consumer:
            await ack(*(message for message in await take(consumer, 400) if message.offset in acked))
            await passes(5)
            uncommitted = consumer.statistics().uncommitted

        checkpoint = stage.checkpoint()
        assert checkpoint is None or (checkpoint.offset, len(checkpoint.extra) <= room) == (0, True)
        async with stage.consumer(prefetch=400) as consumer:
            again = {message.offset for message in await take_all(consumer)}

        assert set(range(400)) - acked <= again
        forgotten, remembered = acked & again, acked - again
        assert len(forgotten) == uncommitted
        assert bool(remembered) == (room >= 20)
        # It is cut at the high end: what is remembered is all below what is not.
        assert max(remembered, default=0) < min(offset for offset in forgotten if offset is not None)
        stage.close()

    async def test_a_full_checkpoint_stops_the_partition_and_says_so_and_goes_on_with_the_watermark(self) -> None:
        stage = Stage(checkpoint_room=24)
        stage.create(2)
        stage.send(2000, partition=0)
        stage.send(10, partition=1)
        async with stage.consumer(prefetch=100) as consumer:
            held = None
            rng = Random(1)
            while True:
                try:
                    message = await consumer.receive(10)
                except TimeoutError:
                    break

                await passes(0.02)
                if message.partition == 0 and message.offset == 0:
                    held = message
                elif message.partition == 1 or rng.random() < 0.5:
                    await message.ack()
                else:
                    await message.nack(delay=100)

            assert held is not None
            statistics = consumer.statistics()
            assert statistics.received < 600
            assert stage.committed(1) == 10
            assert "checkpoint_full" in [reason.code for reason in consumer.health().reasons]
            stage.send(10, partition=1)
            assert len(await handle_all(consumer, quiet=3)) == 10
            await held.ack()
            start = anyio.current_time()
            await handle_all(consumer, quiet=200)
            await until(lambda: stage.committed(0) == 2000)
            assert anyio.current_time() - start < 2000
            assert consumer.health().reasons == []

        stage.close()

    async def test_after_a_restart_a_full_checkpoint_lets_come_what_moves_the_watermark(self) -> None:
        stage = Stage(checkpoint_room=20)
        stage.send(200)
        async with stage.consumer() as consumer:
            await ack(*[message for message in await take(consumer, 200) if (message.offset or 0) * 7919 % 3 == 1])

        # Commits while nothing is in flight, each of a checkpoint that is nearly full.
        async with stage.consumer(max_uncommitted=5, prefetch=1) as consumer:
            await handle_all(consumer, quiet=1000)
            assert consumer.health().reasons == []

        assert stage.committed() == 200
        stage.close()


class TestAttempts:
    async def test_attempts_survive_a_restart(self, stage: Stage) -> None:
        stage.send(3)
        policy = RetryPolicy(max_attempts=4, initial=0, jitter="none")
        seen: list[int] = []
        for _ in range(4):
            async with stage.consumer(retry=policy, dead_letter_topic=DLQ) as consumer:
                for message in await take(consumer, 3):
                    if message.offset == 1:
                        seen.append(message.attempt)
                        await message.nack()

                await passes(3)

        assert seen == [1, 2, 3, 4]
        assert [(letter.offset, letter.attempts) for letter in stage.letters] == [(1, 4)]

    async def test_attempts_are_committed_even_if_nothing_was_acked(self, stage: Stage) -> None:
        stage.send(1)
        async with stage.consumer() as consumer:
            await (await consumer.receive(5)).nack(delay=1000)
            await passes(3)
            assert stage.checkpoint() is not None

        async with stage.consumer() as consumer:
            message = await consumer.receive(5)
            assert (message.attempt, message.text()) == (2, "m0")
            assert consumer.statistics().redelivered == 1

    async def test_a_release_counts_no_attempt(self, either: Stage) -> None:
        either.send(1)
        for _ in range(5):
            async with either.consumer() as consumer:
                assert (await consumer.receive(60)).attempt == 1

    async def test_without_room_attempts_start_over_and_nothing_is_lost(self) -> None:
        stage = Stage(checkpoint_room=0)
        stage.send(3)
        async with stage.consumer() as consumer:
            await (await consumer.receive(5)).nack()

        async with stage.consumer() as consumer:
            assert [message.attempt for message in await take(consumer, 3)] == [1, 1, 1]

        stage.close()

    async def test_a_message_acked_on_its_second_attempt_before_a_restart_is_settled(self, stage: Stage) -> None:
        stage.send(5)
        async with stage.consumer() as consumer:
            messages = await take(consumer, 5)
            await messages[3].nack(delay=1)
            (again,) = await take(consumer, 1)
            assert (again.offset, again.attempt) == (3, 2)
            assert await again.ack() is AckResult.RECORDED

        async with stage.consumer() as consumer:
            assert offsets(await take_all(consumer)) == [0, 1, 2, 4]
