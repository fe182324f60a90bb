"""Promise 2: a committed position never passes a message that is not settled."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

import anyio
import pytest

from rustmq_sdk import (
    CircuitOpen,
    ConsumerStateError,
    Message,
    RetryPolicy,
    StalePartition,
    TopicPartition,
    TransientDriverError,
)
from rustmq_sdk.testing import Fault
from rustmq_sdk.values import Checkpoint
from tests.promises.stage import (
    DLQ,
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


class Commits:
    """Writes down every position that the broker has confirmed."""

    def __init__(self) -> None:
        self.positions: list[int] = []

    def on_committed(self, checkpoints: Mapping[TopicPartition, Checkpoint]) -> None:
        self.positions += [checkpoint.offset for checkpoint in checkpoints.values()]


class TestWhatIsCommitted:
    @pytest.mark.parametrize("settled", range(6))
    async def test_the_position_is_the_first_unsettled_offset(self, stage: Stage, settled: int) -> None:
        stage.send(5)
        async with stage.consumer() as consumer:
            await ack(*(await take(consumer, 5))[:settled])

        assert stage.committed() == (settled or None)

    async def test_nothing_settled_commits_nothing(self, stage: Stage) -> None:
        stage.send(5)
        async with stage.consumer() as consumer:
            await take(consumer, 5)
            await passes(100)

        assert stage.plan.calls["source.commit"] == 0

    @pytest.mark.parametrize("held", [0, 3, 9])
    async def test_one_unsettled_message_holds_the_position_for_ever(self, stage: Stage, held: int) -> None:
        stage.send(10)
        async with stage.consumer() as consumer:
            messages = await take(consumer, 10)
            await ack(*messages[:held], *messages[held + 1 :])
            await passes(600)
            assert stage.committed() == (held or 0)
            await messages[held].ack()
            await passes(2)
            assert stage.committed() == 10

    async def test_a_message_that_waits_for_its_retry_holds_it(self, stage: Stage) -> None:
        stage.send(5)
        async with stage.consumer() as consumer:
            messages = await take(consumer, 5)
            await messages[1].nack(delay=500)
            await ack(messages[0], *messages[2:])
            await passes(400)
            assert stage.committed() == 1
            await passes(200)
            assert stage.committed() == 1
            (retried,) = await take(consumer, 1)
            assert stage.committed() == 1
            await retried.ack()
            await passes(2)
            assert stage.committed() == 5

    async def test_a_message_that_fails_while_it_is_handled_is_not_committed(self, stage: Stage) -> None:
        stage.send(3)
        commits = Commits()

        async def handler(message: Message) -> None:
            await passes(10)  # commits are due meanwhile
            if message.text() == "m1":
                raise ValueError("m1")

        policy = RetryPolicy(initial=1000, max_delay=1000, jitter="none")
        async with (
            stage.consumer(retry=policy, observers=[commits]) as consumer,
            anyio.create_task_group() as group,
        ):
            group.start_soon(consumer.run, handler)
            await passes(5)
            assert stage.committed() is None
            await passes(100)
            consumer.stop()

        assert set(commits.positions) == {1}
        async with stage.consumer() as consumer:
            assert texts(await take_all(consumer)) == ["m1"]

    async def test_a_cancelled_handlers_message_is_not_committed(self, stage: Stage) -> None:
        stage.send(2)

        async def handler(message: Message) -> None:
            await passes(1000)

        async with stage.consumer() as consumer:
            with anyio.move_on_after(50):
                await consumer.run(handler)

        assert stage.committed() is None

    async def test_it_passes_holes_that_compaction_and_transactions_left(self, stage: Stage) -> None:
        stage.send(10)
        stage.broker.compact("t", 0, [0, 1, 4, 9])
        stage.broker.skip("t", 0, 3)
        async with stage.consumer() as consumer:
            messages = await take_all(consumer)
            assert offsets(messages) == [2, 3, 5, 6, 7, 8]
            await ack(*messages[:2])
            await passes(2)
            assert stage.committed() == 5
            await ack(*messages[2:])
            await passes(2)
            assert stage.committed() == 13

    async def test_partitions_move_by_themselves(self, stage: Stage) -> None:
        stage.create(2)
        stage.send(4, partition=0)
        stage.send(4, partition=1)
        async with stage.consumer() as consumer:
            messages = await take(consumer, 8)
            await ack(*(m for m in messages if m.partition == 1 or m.offset == 0))

        assert (stage.committed(0), stage.committed(1)) == (1, 4)

    @pytest.mark.parametrize("seed", range(15))
    async def test_no_order_of_settling_moves_it_past_an_unsettled_message(self, stage: Stage, seed: int) -> None:
        rng = Random(seed)
        unsettled = set(range(120))

        class Checks:
            def on_committed(self, checkpoints: Mapping[TopicPartition, Checkpoint]) -> None:
                first = min(unsettled, default=120)
                checked.extend((checkpoint.offset, first) for checkpoint in checkpoints.values())

        checked: list[tuple[int, int]] = []
        stage.send(120)
        options: Any = {"max_in_flight": 40, "prefetch": 15, "commit_every": 7, "commit_interval": 0.3}
        options |= {"retry": RetryPolicy(max_attempts=1000), "dead_letter_topic": DLQ}
        async with stage.consumer(observers=[Checks()], **options) as consumer:
            hand: list[Message] = []
            while unsettled:
                with anyio.move_on_after(0.2):
                    while len(hand) < rng.randint(1, 30):
                        hand.append(await consumer.receive())

                rng.shuffle(hand)
                while len(hand) > rng.randint(0, 10):
                    message = hand.pop()
                    fate = rng.random()
                    if fate < 0.2:
                        await message.nack(delay=rng.random())
                    else:
                        assert message.offset is not None
                        unsettled.discard(message.offset)
                        await (message.ack() if fate < 0.9 else message.reject())

                if rng.random() < 0.3:
                    await passes(rng.random())

        assert all(position <= first for position, first in checked)
        assert checked == sorted(checked)
        assert stage.committed() == 120


class TestWhenItIsCommitted:
    async def test_after_the_interval(self, stage: Stage) -> None:
        stage.send(10)
        async with stage.consumer(commit_interval=20) as consumer:
            messages = await take(consumer, 10)
            start = anyio.current_time()
            await ack(*messages[:4])
            await until(lambda: stage.committed() == 4)
            assert 15 < anyio.current_time() - start <= 21

    async def test_at_once_when_enough_is_settled(self, stage: Stage) -> None:
        stage.send(1000)
        async with stage.consumer(commit_interval=3600, commit_every=50) as consumer:
            await ack(*(await take(consumer, 420)))
            await passes(0.1)
            assert 350 < (stage.committed() or 0) <= 420

    async def test_soon_when_nothing_is_left_to_wait_for(self, stage: Stage) -> None:
        stage.send(10)
        async with stage.consumer(commit_interval=3600) as consumer:
            await ack(*(await take(consumer, 10)))
            await passes(0.2)
            assert stage.committed() == 10

    async def test_at_the_exit(self, stage: Stage) -> None:
        stage.send(10)
        async with stage.consumer(commit_interval=3600) as consumer:
            await ack(*(await take(consumer, 10))[:6])
            assert stage.committed() is None

        assert stage.committed() == 6

    async def test_at_the_exit_by_an_exception(self, stage: Stage) -> None:
        stage.send(10)
        with pytest.raises(KeyError):
            await self._fail_after(stage, 6)

        assert stage.committed() == 6

    async def _fail_after(self, stage: Stage, count: int) -> None:
        async with stage.consumer(commit_interval=3600) as consumer:
            await ack(*(await take(consumer, count)))
            raise KeyError("the user's")

    async def test_at_the_exit_by_a_cancelled_scope(self, stage: Stage) -> None:
        stage.send(10)
        with anyio.CancelScope() as scope:
            async with stage.consumer(commit_interval=3600) as consumer:
                await ack(*(await take(consumer, 6)))
                scope.cancel()
                await passes(1)

        assert stage.committed() == 6

    async def test_when_asked(self, stage: Stage) -> None:
        stage.send(10)
        async with stage.consumer(commit_interval=3600) as consumer:
            await ack(*(await take(consumer, 10))[:6])
            await consumer.commit()
            assert stage.committed() == 6


class TestExplicitCommits:
    async def test_without_auto_commit_only_commit_commits(self, stage: Stage) -> None:
        stage.send(10)
        async with stage.consumer(auto_commit=False) as consumer:
            messages = await take(consumer, 10)
            await ack(*messages[:5])
            await passes(100)
            assert stage.committed() is None
            await consumer.commit()
            assert stage.committed() == 5
            await ack(*messages[5:])

        assert stage.committed() == 5

    @pytest.mark.parametrize("how", ["receive", "receive_batch", "run"])
    async def test_forgetting_commit_is_an_error_that_names_it(self, stage: Stage, how: str) -> None:
        stage.send(60)
        handled: list[str] = []

        async def handler(message: Message) -> None:
            handled.append(message.text())

        async with stage.consumer(auto_commit=False, max_uncommitted=20, prefetch=10) as consumer:

            async def work() -> None:
                if how == "run":
                    await consumer.run(handler)

                while True:
                    if how == "receive":
                        handled.append((message := await consumer.receive(30)).text())
                        await message.ack()
                    else:
                        handled.extend(texts(batch := await consumer.receive_batch(7, timeout=30)))
                        await batch.ack()

            with pytest.raises(ConsumerStateError, match=r"await consumer.commit\(\)"):
                await work()

            assert 20 <= len(handled) <= 40
            await consumer.commit()
            assert stage.committed() == len(handled)
            message = await consumer.receive(5)
            assert message.text() == f"m{len(handled)}"

    async def test_a_durable_ack_commits_without_auto_commit(self, stage: Stage) -> None:
        stage.send(3)
        async with stage.consumer(auto_commit=False) as consumer:
            (message,) = await take(consumer, 1)
            await message.ack(durable=True)
            assert stage.committed() == 1


class TestCommitsThatFail:
    @pytest.mark.parametrize("kind", ["refused", "reply_lost", "hang", "disconnect"])
    async def test_the_next_commit_carries_what_a_failed_one_could_not(self, stage: Stage, kind: Any) -> None:
        stage.plan = Plan(*(Fault("source.commit", kind, call, seconds=6) for call in (1, 2)))
        stage.send(10)
        async with stage.consumer(circuit_open=3) as consumer:
            await ack(*(await take(consumer, 7)))
            await until(lambda: stage.committed() == 7, at_most=120)
            await ack(*(await take(consumer, 3)))

        assert stage.committed() == 10

    async def test_commit_says_when_it_could_not(self, stage: Stage) -> None:
        stage.plan.breaks("source.commit")
        stage.send(10)
        async with stage.consumer(circuit_failures=1000) as consumer:
            await ack(*(await take(consumer, 7)))
            start = anyio.current_time()
            with pytest.raises(TransientDriverError, match=r"commit_timeout=10.* refused"):
                await consumer.commit()

            assert anyio.current_time() - start == pytest.approx(10, abs=0.1)
            assert [reason.code for reason in consumer.health().reasons] == ["commit_failing"]
            stage.plan.heals()
            await consumer.commit()
            assert stage.committed() == 7
            assert consumer.health().ok

    async def test_commit_says_when_the_circuit_is_open(self, stage: Stage) -> None:
        stage.plan.breaks("source.commit")
        stage.send(10)
        async with stage.consumer() as consumer:
            await ack(*(await take(consumer, 7)))
            await until(lambda: consumer.statistics().circuits.get("source.settle") == "open")
            with pytest.raises(CircuitOpen) as caught:
                await consumer.commit()

            assert 0 < caught.value.retry_in <= 60

    async def test_a_commit_that_is_cancelled_at_shutdown_claims_nothing(self, stage: Stage) -> None:
        stage.plan.breaks("source.commit", kind="hang")
        stage.send(10)
        async with stage.consumer() as consumer:
            await ack(*(await take(consumer, 7)))

        assert stage.committed() is None
        stage.plan.heals()
        async with stage.consumer() as consumer:
            assert await handle_all(consumer) == numbered(10)

    async def test_a_commit_in_flight_at_shutdown_is_followed_by_the_last_one(self, stage: Stage) -> None:
        stage.plan = Plan(Fault("source.commit", "hang", 1, seconds=4))
        stage.send(10)
        async with stage.consumer(commit_interval=0.1) as consumer:
            messages = await take(consumer, 10)
            await ack(*messages[:3])
            await until(lambda: stage.plan.calls["source.commit"] == 1)
            await ack(*messages[3:9])

        assert stage.committed() == 9

    async def test_a_cancelled_commit_call_is_carried_on(self, stage: Stage) -> None:
        stage.plan = Plan(Fault("source.commit", "hang", 1, seconds=4))
        stage.send(10)
        async with stage.consumer(commit_interval=3600) as consumer:
            await ack(*(await take(consumer, 10))[:3])
            with anyio.move_on_after(1):
                await consumer.commit()

            await passes(5)
            assert stage.committed() == 3

    async def test_commit_waits_for_every_partition_also_while_another_is_revoked(self, stage: Stage) -> None:
        stage.plan = Plan(Fault("source.commit", "hang", 1, seconds=5))
        stage.create(2)
        stage.send(5, partition=0)
        stage.send(5, partition=1)
        async with stage.consumer(commit_interval=3600) as consumer, anyio.create_task_group() as group:
            messages = await take(consumer, 10)
            await messages[0].ack()
            await in_background(group, consumer.commit)
            await ack(*messages[1:])

            async def commit() -> object:
                await consumer.commit()
                return stage.committed(0), stage.committed(1)

            outcome = await in_background(group, commit)
            async with stage.consumer(plan=Plan()):
                await until(lambda: outcome)
                assert outcome == [(5, 5)] or isinstance(outcome[0], StalePartition)

    async def test_a_checkpoint_that_cannot_be_read_costs_repetition_and_no_message(self, stage: Stage) -> None:
        stage.send(10)
        async with stage.consumer() as consumer:
            messages = await take(consumer, 10)
            await ack(*messages[:2], *messages[5:])

        committed = stage.broker.group("g").committed
        tp = TopicPartition("t", 0)
        committed[tp] = committed[tp]._replace(extra=b"\x01 something else")
        async with stage.consumer() as consumer:
            assert await handle_all(consumer) == numbered(8, 2)
