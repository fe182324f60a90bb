"""Promise 13: stop fetching, finish what is in flight, settle, commit, leave: in this order, within close_timeout."""

from __future__ import annotations

from functools import partial

import anyio
import pytest

from rustmq_sdk import AckResult, Consumer, Message, Messages, PermanentDriverError, RetryPolicy
from rustmq_sdk.drivers.memory import MemoryDriver
from rustmq_sdk.drivers.memory.log_source import MemoryLogSubscription
from rustmq_sdk.testing import Fault
from rustmq_sdk.values import OutgoingMessage
from tests.promises.hard_shutdowns import Polite, Sticky, group_is_empty, work_for_ever
from tests.promises.stage import (
    DLQ,
    GROUP,
    TP,
    Plan,
    Stage,
    ack,
    handle_all,
    in_background,
    numbered,
    passes,
    take,
    until,
)

HANGING = ("source.commit", "source.settle", "source.fetch", "source.extend", "source.read", "dead_letters.put")
STEPS = ("handled 0", "handled 1", "handled 2", "handled 3", "dead_letters.put", "source.commit", "closed")


class Log(Plan):
    """Notes every call that reaches the driver, in order."""

    def __init__(self, *faults: Fault) -> None:
        super().__init__(*faults)
        self.log: list[str] = []

    def draw(self, operation: str) -> Fault | None:
        self.log.append(operation)
        return super().draw(operation)


@pytest.mark.virtual_time
class TestShort:
    async def test_with_nothing_in_flight_it_takes_no_time(self, either: Stage) -> None:
        either.send(100)
        async with either.consumer(commit_interval=3600) as consumer:
            assert await handle_all(consumer) == numbered(100)
            before = anyio.current_time()

        assert anyio.current_time() == before
        if either.kind == "log":
            assert either.committed() == 100

    async def test_a_stop_ends_in_time_whatever_else_becomes_due_meanwhile(self, stage: Stage) -> None:
        stage.send(5)
        policy = RetryPolicy(initial=4, multiplier=1.5, jitter="none")

        async def handler(message: Message) -> None:
            if message.offset:
                raise ValueError("again later")

            await anyio.sleep_forever()

        async with stage.consumer(retry=policy, close_timeout=10) as consumer, anyio.create_task_group() as group:
            ended = await in_background(group, partial(consumer.run, handler, concurrency=5))
            await passes(1)
            start = anyio.current_time()
            consumer.stop()
            await until(lambda: ended)
            assert anyio.current_time() - start == pytest.approx(6, abs=0.5)

    @pytest.mark.parametrize("operation", [*HANGING, "everything"])
    async def test_it_ends_in_time_even_if_the_broker_does_not_answer(self, either: Stage, operation: str) -> None:
        either.send(20)
        async with either.consumer(close_timeout=10, dead_letter_topic=DLQ) as consumer:
            messages = await take(consumer, 10)
            either.plan.breaks(*(HANGING if operation == "everything" else (operation,)), kind="hang")
            await messages[0].reject("no good")
            await messages[1].nack(delay=1)
            await ack(*messages[2:7])
            await passes(2)
            before = anyio.current_time()

        assert anyio.current_time() - before <= 10.01
        assert group_is_empty(either)
        # And nothing is lost by it.
        either.plan.heals()
        async with either.consumer(dead_letter_topic=DLQ) as consumer:
            again = await handle_all(consumer, quiet=60)

        assert {"m1", *numbered(13, 7)} <= set(again)
        assert "m0" in again or [letter.payload for letter in either.letters] == [b"m0"]

    async def test_it_ends_in_time_even_if_leaving_hangs(self) -> None:
        async with MemoryDriver() as driver:
            source = Sticky(driver)
            consumer = Consumer(source, group=GROUP, close_timeout=10)
            async with consumer:
                await passes(1)
                before = anyio.current_time()

            assert source.asked_to_leave
            assert anyio.current_time() - before <= 10.01

    async def test_it_ends_in_time_even_if_an_async_handler_never_does(
        self, either: Stage, caplog: pytest.LogCaptureFixture
    ) -> None:
        either.send(5)
        async with either.consumer(close_timeout=10) as consumer, anyio.create_task_group() as group:
            group.start_soon(lambda: consumer.run(work_for_ever, concurrency=3))
            await passes(2)
            before = anyio.current_time()
            await consumer.close()
            assert anyio.current_time() - before <= 10.01

        (said,) = [record for record in caplog.records if getattr(record, "event", "") == "handlers_cut_off"]
        assert said.getMessage().startswith(
            "handlers still at work after the 6 s that close_timeout=10 leaves them: 3."
        )
        async with either.consumer() as consumer:
            messages = await take(consumer, 5)
            assert [message.attempt for message in messages] == [1] * 5

    async def test_it_ends_in_time_even_if_a_receiver_never_settles(self, either: Stage) -> None:
        either.send(5)
        async with either.consumer(close_timeout=10) as consumer:
            await ack(*(await take(consumer, 2)))
            (held,) = await take(consumer, 1)
            before = anyio.current_time()
            await consumer.close()
            assert 5 < anyio.current_time() - before <= 10.01
            assert await held.ack() is AckResult.STALE

        async with either.consumer() as consumer:
            assert await handle_all(consumer) == numbered(3, 2)

    async def test_a_close_that_is_cancelled_meanwhile_still_commits_and_leaves_in_time(self, stage: Stage) -> None:
        stage.send(10)
        stage.plan = Plan(Fault("source.commit", "hang", 1, seconds=2))
        before = 0.0
        with anyio.CancelScope() as scope:
            async with stage.consumer(commit_interval=3600, close_timeout=20) as consumer:
                await ack(*(await take(consumer, 7)))
                scope.deadline = anyio.current_time() + 1  # in the middle of the commit
                before = anyio.current_time()

        assert anyio.current_time() - before == pytest.approx(2, abs=0.1)
        assert stage.committed() == 7
        assert group_is_empty(stage)

    async def test_a_rebalance_that_waits_for_handlers_does_not_hold_it_up(self, stage: Stage) -> None:
        stage.send(3)
        async with stage.consumer(close_timeout=20) as consumer:
            messages = await take(consumer, 3)
            await messages[0].ack()
            stage.broker.rebalance(GROUP)
            await passes(1)
            before = anyio.current_time()

        assert anyio.current_time() - before < 2.01
        assert stage.committed() == 1
        assert group_is_empty(stage)

    async def test_a_client_that_finishes_its_rebalance_before_it_leaves_is_not_cut_off(self) -> None:
        async with MemoryDriver() as driver:
            driver.broker.create_topic("t", 1)
            driver.broker.append(TP, [OutgoingMessage(b"m0")])
            source = Polite(driver)
            async with Consumer(source, group=GROUP, close_timeout=20) as consumer:
                await take(consumer, 1)
                driver.broker.rebalance(GROUP)
                await passes(1)
                assert "rebalancing" in [reason.code for reason in consumer.health().reasons]
                before = anyio.current_time()

            assert source.left
            assert anyio.current_time() - before < 1

    async def test_an_open_circuit_is_tried_once(self, stage: Stage) -> None:
        stage.send(10)
        stage.plan.breaks("source.commit")
        async with stage.consumer(commit_interval=0.1, circuit_failures=2, circuit_open=1000) as consumer:
            await ack(*(await take(consumer, 5)))
            await until(lambda: consumer.statistics().circuits["source.settle"] == "open")
            calls = stage.plan.calls["source.commit"]
            stage.plan.heals()
            before = anyio.current_time()

        assert anyio.current_time() - before < 1
        assert stage.plan.calls["source.commit"] == calls + 1
        assert stage.committed() == 5

    async def test_a_message_that_waits_for_its_retry_is_not_waited_for(self, either: Stage) -> None:
        either.send(2)
        async with either.consumer(close_timeout=20) as consumer:
            first, second = await take(consumer, 2)
            await first.nack(delay=15)
            await second.ack()
            before = anyio.current_time()
            await consumer.close()
            assert anyio.current_time() - before < 0.1

        async with either.consumer() as consumer:
            message = await consumer.receive(60)
            assert (message.text(), message.attempt) == ("m0", 2)


@pytest.mark.virtual_time
class TestOrder:
    async def test_handlers_finish_then_letters_are_written_then_the_last_commit_then_it_leaves(
        self, stage: Stage
    ) -> None:
        stage.plan = plan = Log()
        stage.send(4)
        members_at_commit: list[int] = []

        async def handler(message: Message) -> None:
            await passes(5)
            plan.log.append(f"handled {message.offset}")
            if message.offset == 1:
                await message.reject("no good")

            members_at_commit.append(len(stage.broker.group(GROUP).members))

        async with (
            stage.consumer(dead_letter_topic=DLQ, commit_interval=3600) as consumer,
            anyio.create_task_group() as group,
        ):
            group.start_soon(lambda: consumer.run(handler, concurrency=2, ordering="none"))
            await passes(3)
            closed = await in_background(group, consumer.close)
            stage.send(100)
            await until(lambda: closed)
            assert consumer.statistics().received == 4
            plan.log.append("closed")

        steps = [step for step in plan.log if step in STEPS]
        assert sorted(steps[:2]) == ["handled 0", "handled 1"]
        assert steps[2:] == ["dead_letters.put", "source.commit", "closed"]
        assert members_at_commit == [1, 1]
        assert group_is_empty(stage)
        assert stage.committed() == 2

    async def test_a_dead_letter_in_flight_is_written_before_the_position_moves(self, stage: Stage) -> None:
        stage.send(3)
        stage.plan = Plan(Fault("dead_letters.put", "hang", 1, seconds=2))
        async with stage.consumer(dead_letter_topic=DLQ) as consumer:
            messages = await take(consumer, 3)
            await messages[0].reject("no good")
            await ack(*messages[1:])

        assert [letter.payload for letter in stage.letters] == [b"m0"]
        assert stage.committed() == 3

    async def test_a_dead_letter_that_cannot_be_written_costs_the_rest_no_commit(self, stage: Stage) -> None:
        stage.create(2)
        stage.send(3, partition=0)
        stage.send(3, partition=1)
        stage.plan.breaks("dead_letters.put", kind="hang")
        async with stage.consumer(dead_letter_topic=DLQ, commit_interval=3600) as consumer:
            for message in await take(consumer, 6):
                await (message.reject() if (message.partition, message.offset) == (0, 1) else message.ack())

        assert (stage.committed(0), stage.committed(1)) == (1, 3)

    async def test_a_handler_has_no_longer_after_a_stop_than_when_closing(self, either: Stage) -> None:
        either.send(2)
        ended: list[str] = []

        async def handle(message: Message) -> None:
            if message.text() == "m1":
                consumer.stop()

            try:
                await anyio.sleep(3600 if message.text() == "m0" else 5)
            finally:
                ended.append(message.text())

        start = anyio.current_time()
        async with either.consumer(close_timeout=10) as consumer:
            await consumer.run(handle, concurrency=2, ordering="none")
            assert anyio.current_time() - start == pytest.approx(6, abs=0.5)

        assert anyio.current_time() - start <= 10
        assert ended == ["m1", "m0"], "who needs less time has it"
        async with either.consumer() as again:
            message = await again.receive(60)
            assert (message.text(), message.attempt) == ("m0", 1)

    async def test_a_consumer_that_has_failed_for_good_waits_for_no_commit(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def refuse(*_args: object) -> None:
            raise PermanentDriverError("the file is gone", slot="source", operation="commit")

        stage.send(5)
        with pytest.raises(PermanentDriverError):  # noqa: PT012  # it is raised by leaving the block
            async with stage.consumer() as consumer:
                await ack(*await take(consumer, 3))
                monkeypatch.setattr(MemoryLogSubscription, "commit", refuse)
                await passes(5)
                start = anyio.current_time()

        assert anyio.current_time() - start < 1

    async def test_no_handler_gets_a_message_after_the_stop(self, either: Stage) -> None:
        either.send(50)
        started: list[str] = []

        async def handler(message: Message) -> None:
            started.append(message.text())
            await passes(3)

        async with either.consumer() as consumer, anyio.create_task_group() as group:
            group.start_soon(lambda: consumer.run(handler, concurrency=4, ordering="none"))
            await passes(4)
            so_far = list(started)
            consumer.stop()

        assert started == so_far
        assert len(started) == 8
        async with either.consumer() as consumer:
            assert sorted(await handle_all(consumer)) == sorted(set(numbered(50)) - set(started))

    async def test_a_batch_at_work_is_finished(self, either: Stage) -> None:
        either.send(10)

        async def handler(batch: Messages) -> None:
            await passes(3)

        async with either.consumer() as consumer, anyio.create_task_group() as group:
            group.start_soon(lambda: consumer.run(handler, batch_size=5))
            await passes(1)
            await consumer.close()

        async with either.consumer() as consumer:
            assert await handle_all(consumer) == numbered(5, 5)
