"""Promise 13: stop fetching, finish what is in flight, settle, commit, leave: in this order, within close_timeout."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from rustmq_sdk import (
    AckResult,
    ConfigurationError,
    Consumer,
    ConsumerClosed,
    ConsumerStateError,
    Message,
    Messages,
    PermanentDriverError,
    RetryPolicy,
    StalePartition,
    stop_on_signals,
)
from rustmq_sdk.drivers.memory import MemoryDriver
from rustmq_sdk.drivers.memory.log_source import MemoryLogSubscription
from rustmq_sdk.slots import AssignmentListener, Capabilities, SourceRequest
from rustmq_sdk.testing import Fault
from rustmq_sdk.values import Assignment, OutgoingMessage
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


def group_is_empty(stage: Stage) -> bool:
    """Nobody is a member any more."""
    return not stage.broker.group(GROUP).members


async def work_for_ever(message: Message) -> None:
    await anyio.sleep_forever()


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

    async def test_it_ends_in_time_even_if_an_async_handler_never_does(self, either: Stage) -> None:
        either.send(5)
        async with either.consumer(close_timeout=10) as consumer, anyio.create_task_group() as group:
            group.start_soon(lambda: consumer.run(work_for_ever, concurrency=3))
            await passes(2)
            before = anyio.current_time()
            await consumer.close()
            assert anyio.current_time() - before <= 10.01

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


class TestThreads:
    """In real time: a thread's work is invisible to a clock that jumps."""

    async def test_it_ends_in_time_even_if_a_plain_handler_never_does(self, either: Stage) -> None:
        either.send(3)
        release = threading.Event()
        at_work = threading.Event()

        def handler(message: Message) -> None:
            at_work.set()
            release.wait()

        try:
            async with either.consumer(close_timeout=0.5) as consumer, anyio.create_task_group() as group:
                group.start_soon(consumer.run, handler)
                with anyio.fail_after(10):
                    while not at_work.is_set():  # noqa: ASYNC110  # it is a thread that sets it
                        await anyio.sleep(0.001)

                before = anyio.current_time()
                await consumer.close()
                assert anyio.current_time() - before < 5
        finally:
            release.set()

        async with either.consumer() as consumer:
            assert sorted(await handle_all(consumer, quiet=0.2)) == numbered(3)

    async def test_stop_from_a_thread_ends_the_loop(self, either: Stage) -> None:
        either.send(2)
        seen: list[str] = []
        async with either.consumer() as consumer:
            with anyio.fail_after(10):
                async for message in consumer:
                    seen.append(message.text())
                    await message.ack()
                    if len(seen) == 2:
                        # It comes while this task waits for the next message.
                        threading.Timer(0.02, consumer.stop).start()

            with pytest.raises(ConsumerClosed):
                await consumer.receive()

        assert seen == numbered(2)
        if either.kind == "log":
            assert either.committed() == 2

    async def test_stop_from_a_thread_ends_run(self, either: Stage) -> None:
        either.send(2)
        seen: list[str] = []

        async def handler(message: Message) -> None:
            seen.append(message.text())
            if len(seen) == 2:
                threading.Timer(0.02, consumer.stop).start()

        async with either.consumer() as consumer:
            with anyio.fail_after(10):
                await consumer.run(handler, concurrency=3)

        assert seen == numbered(2)


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


@pytest.mark.virtual_time
class TestClosing:
    async def test_close_from_another_task_waits_for_what_receivers_hold(self, either: Stage) -> None:
        either.send(10)
        seen: list[str] = []

        async def loop(consumer: Consumer) -> None:
            async for message in consumer:
                await passes(4)
                seen.append(message.text())
                assert await message.ack() is AckResult.RECORDED

        async with either.consumer() as consumer, anyio.create_task_group() as group:
            group.start_soon(loop, consumer)
            group.start_soon(loop, consumer)
            await passes(6)
            await consumer.close()
            assert len(seen) == 4

        async with either.consumer() as consumer:
            assert sorted([*seen, *await handle_all(consumer)]) == numbered(10)

    async def test_close_inside_a_handler_only_asks(self, either: Stage) -> None:
        either.send(5)
        seen: list[str] = []

        async def handler(message: Message) -> None:
            before = anyio.current_time()
            await consumer.close()
            assert anyio.current_time() == before
            seen.append(message.text())

        async with either.consumer() as consumer:
            await consumer.run(handler)

        assert seen == ["m0"]
        async with either.consumer() as consumer:
            assert await handle_all(consumer) == numbered(4, 1)

    async def test_close_in_a_task_of_a_handler_only_asks_as_well(self, either: Stage) -> None:
        either.send(1)

        async def handler(message: Message) -> None:
            async with anyio.create_task_group() as group:
                group.start_soon(consumer.close)

        async with either.consumer() as consumer:
            before = anyio.current_time()
            await consumer.run(handler)

        assert anyio.current_time() - before < 0.1

    async def test_a_handler_may_close_another_consumer(self, stage: Stage) -> None:
        stage.send(1)
        stage.send(1, topic="other")

        async def handler(message: Message) -> None:
            await other.close()
            assert other.health().state == "closed"
            consumer.stop()

        async with stage.consumer("other", group="h") as other, stage.consumer() as consumer:
            await consumer.run(handler)

    async def test_closing_twice_and_at_once_is_fine(self, either: Stage) -> None:
        either.send(3)
        async with either.consumer() as consumer:
            (message, *_) = await take(consumer, 3)
            async with anyio.create_task_group() as group:
                outcomes = [await in_background(group, consumer.close) for _ in range(3)]
                await passes(1)
                assert outcomes == [[], [], []]
                await message.ack()
                await passes(20)

            assert outcomes == [[None], [None], [None]]
            await consumer.close()

        assert consumer.health().state == "closed"

    async def test_afterwards_there_are_no_messages_and_handles_are_stale(self, either: Stage) -> None:
        either.send(10)
        async with either.consumer(close_timeout=2) as consumer:
            acked, *held = await take(consumer, 4)
            await acked.ack()
            await consumer.close()
            for call in (consumer.receive, consumer.receive_batch):
                with pytest.raises(ConsumerClosed):
                    await call()

            assert [message async for message in consumer] == []
            await consumer.run(work_for_ever)
            assert await held[0].ack() is AckResult.STALE
            assert await held[0].nack() is AckResult.STALE
            assert await held[0].reject() is AckResult.STALE
            with pytest.raises(StalePartition):
                await held[1].ack(durable=True)

        assert await held[2].ack() is AckResult.STALE
        async with either.consumer() as consumer:
            assert await handle_all(consumer) == numbered(9, 1)

    async def test_waiting_receivers_are_told_and_loops_end(self, either: Stage) -> None:
        either.create()
        async with either.consumer() as consumer, anyio.create_task_group() as group:
            receiver = await in_background(group, consumer.receive)
            batch = await in_background(group, consumer.receive_batch)
            loop = await in_background(group, _collect, consumer)
            await consumer.close()
            await anyio.wait_all_tasks_blocked()

        assert [type(outcome[0]) for outcome in (receiver, batch)] == [ConsumerClosed, ConsumerClosed]
        assert loop == [[]]

    async def test_a_stopped_consumer_can_still_settle_what_it_holds(self, either: Stage) -> None:
        either.send(3)
        async with either.consumer() as consumer:
            messages = await take(consumer, 3)
            consumer.stop()
            for message in messages:
                assert await message.ack(durable=True) is AckResult.DURABLE

        async with either.consumer() as consumer:
            assert await handle_all(consumer) == []

    async def test_a_stop_before_anything_came_ends_at_once(self, either: Stage) -> None:
        async with either.consumer() as consumer:
            consumer.stop()
            assert await _collect(consumer) == []
            await consumer.run(work_for_ever)


@pytest.mark.virtual_time
class TestLeaving:
    async def test_what_nobody_settled_is_released_at_once_and_counts_no_attempt(self, either: Stage) -> None:
        either.send(10)
        for _ in range(3):
            before = anyio.current_time()
            async with either.consumer(close_timeout=20, lease=1000) as consumer:
                messages = await take(consumer, 5)
                assert [(message.text(), message.attempt) for message in messages] == [(f"m{n}", 1) for n in range(5)]

            assert anyio.current_time() - before < 0.1

    async def test_another_member_has_it_at_once(self, either: Stage) -> None:
        either.send(4)

        async def other() -> list[Message]:
            async with either.consumer(lease=1000) as consumer:
                return await take(consumer, 4)

        async with anyio.create_task_group() as group:
            async with either.consumer(lease=1000) as consumer:
                await take(consumer, 4)
                outcome = await in_background(group, other)
                await passes(30)
                assert not outcome
                before = anyio.current_time()

            await until(lambda: outcome)
            assert anyio.current_time() - before < 1

        assert sorted((message.text(), message.attempt) for message in outcome[0]) == [(f"m{n}", 1) for n in range(4)]

    async def test_handlers_of_a_run_in_another_task_finish_first(self, either: Stage) -> None:
        either.send(10)
        handled: list[str] = []

        async def handler(message: Message) -> None:
            await passes(5)
            handled.append(message.text())

        async with anyio.create_task_group() as group:
            async with either.consumer() as consumer:
                group.start_soon(lambda: consumer.run(handler, concurrency=3, ordering="none"))
                await passes(2)

            assert sorted(handled) == numbered(3)

        async with either.consumer() as consumer:
            assert await handle_all(consumer) == numbered(7, 3)

    async def test_a_native_cancellation_around_it_still_commits(self, stage: Stage, anyio_backend_name: str) -> None:
        if anyio_backend_name != "asyncio":
            pytest.skip("trio has no other cancellation than scopes")

        stage.send(10)

        async def live() -> None:
            async with stage.consumer(commit_interval=3600) as consumer:
                await ack(*(await take(consumer, 6)))
                await anyio.sleep_forever()

        task = asyncio.create_task(live())
        await passes(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        assert stage.committed() == 6
        assert group_is_empty(stage)

    async def test_leaving_in_another_task_is_refused_with_the_remedy(self, stage: Stage) -> None:
        stage.send(1)
        async with stage.client() as client, anyio.create_task_group() as group:
            consumer = client.consumer("t", group=GROUP)
            async with consumer:
                (outcome,) = await in_background(group, consumer.__aexit__, None, None, None)
                assert type(outcome) is ConsumerStateError
                assert "pytest-asyncio" in str(outcome)
                # And it goes on as if nobody had asked.
                assert await handle_all(consumer) == ["m0"]

    async def test_it_is_entered_once(self, stage: Stage) -> None:
        async with stage.client() as client:
            consumer = client.consumer("t", group=GROUP)
            with pytest.raises(ConsumerStateError, match="not entered yet"):
                await consumer.receive()

            async with consumer:
                with pytest.raises(ConsumerStateError, match="entered once"):
                    await consumer.__aenter__()

            with pytest.raises(ConsumerStateError, match="entered once"):
                await consumer.__aenter__()

    async def test_closed_before_it_is_entered_it_holds_nothing(self, stage: Stage) -> None:
        async with stage.client() as client:
            consumer = client.consumer("t", group=GROUP)
            await consumer.close()
            assert consumer.health().state == "closed"
            consumer.stop()

    async def test_a_stop_while_it_is_entered_is_obeyed(self) -> None:
        async with MemoryDriver() as driver, anyio.create_task_group() as group:
            consumer = Consumer(Slow(driver), group=GROUP)

            async def live() -> list[Message]:
                async with consumer:
                    return await _collect(consumer)

            outcome = await in_background(group, live)
            consumer.stop()
            await passes(10)
            assert outcome == [[]]

    async def test_a_retry_under_way_is_released_as_the_attempt_it_was(self, stage: Stage) -> None:
        stage.send(1)
        async with stage.consumer(retry=RetryPolicy(initial=0)) as consumer:
            await (await consumer.receive(5)).nack()
            assert (await consumer.receive(5)).attempt == 2

        async with stage.consumer() as consumer:
            assert (await consumer.receive(5)).attempt == 2


class Refused(Plan):
    """A broker that after a while lets nobody read any more."""

    def __init__(self) -> None:
        super().__init__()
        self.until = anyio.current_time() + 5

    def draw(self, operation: str) -> Fault | None:
        if operation == "source.fetch" and anyio.current_time() > self.until:
            raise PermanentDriverError("you may not read this", slot="source", operation="fetch")

        return super().draw(operation)


@pytest.mark.virtual_time
class TestFailures:
    async def test_a_failure_nobody_has_seen_is_raised_at_the_exit_as_itself(self, stage: Stage) -> None:
        stage.send(3)
        with pytest.raises(PermanentDriverError, match="you may not read this") as caught:
            await self._live(stage, 10)

        assert type(caught.value) is PermanentDriverError
        # What was acked before is committed all the same.
        assert stage.committed() == 2

    async def _live(self, stage: Stage, seconds: float) -> None:
        async with stage.consumer(plan=Refused(), commit_interval=3600) as consumer:
            await ack(*(await take(consumer, 2)))
            await passes(seconds)

    async def test_one_that_was_raised_already_is_not_raised_again(self, stage: Stage) -> None:
        stage.send(3)
        async with stage.consumer(plan=Refused()) as consumer:
            await ack(*(await take(consumer, 3)))
            with pytest.raises(PermanentDriverError):
                await consumer.receive(60)

        assert consumer.health().state == "failed"

    async def test_the_users_own_error_is_not_replaced_by_it(self, stage: Stage) -> None:
        with pytest.raises(KeyError, match="the user's"):
            await self._fail(stage)

    async def _fail(self, stage: Stage) -> None:
        async with stage.consumer(plan=Refused()):
            await passes(20)
            raise KeyError("the user's")

    async def test_run_raises_it_as_itself_when_handlers_have_finished(self, stage: Stage) -> None:
        stage.send(2)
        done: list[str] = []

        async def handler(message: Message) -> None:
            await passes(20)
            done.append(message.text())

        async with stage.consumer(plan=Refused()) as consumer:
            with pytest.raises(PermanentDriverError) as caught:
                await consumer.run(handler, concurrency=4)

            assert type(caught.value) is PermanentDriverError
            assert sorted(done) == ["m0", "m1"]

        assert stage.committed() == 2

    async def test_a_source_that_cannot_be_reached_is_raised_at_the_entry(self, stage: Stage) -> None:
        async with MemoryDriver() as driver:
            with pytest.raises(PermanentDriverError, match="no such host"):
                async with Consumer(Unreachable(driver), group=GROUP):
                    raise AssertionError("it cannot be entered")


class TestSignals:
    """In real time and in processes: signals are the machine's."""

    @pytest.mark.parametrize("consumers", [(), (None,), ("orders",), (Consumer,), ([],)])
    def test_what_cannot_be_stopped_is_refused_at_once(self, consumers: Any) -> None:
        before = signal.getsignal(signal.SIGTERM)
        refused = pytest.raises(ConfigurationError, match=r"Write stop_on_signals\(consumer\)")
        with refused, stop_on_signals(*consumers):
            raise AssertionError("it cannot be entered")

        assert signal.getsignal(signal.SIGTERM) is before

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    async def test_the_first_one_stops(self, stage: Stage, number: signal.Signals) -> None:
        stage.send(3)
        before = signal.getsignal(number)
        seen: list[str] = []
        async with stage.consumer() as consumer:
            with stop_on_signals(consumer), anyio.fail_after(10):
                async for message in consumer:
                    seen.append(message.text())
                    await message.ack()
                    if len(seen) == 3:
                        threading.Timer(0.02, os.kill, (os.getpid(), number)).start()

            assert signal.getsignal(number) is before

        assert seen == numbered(3)
        assert stage.committed() == 3

    async def test_it_stops_several_consumers(self, stage: Stage) -> None:
        stage.create()
        stage.create(topic="other")
        async with stage.consumer() as one, stage.consumer("other") as two, anyio.create_task_group() as group:
            with stop_on_signals(one, two), anyio.fail_after(10):
                outcomes = [await in_background(group, _collect, consumer) for consumer in (one, two)]
                os.kill(os.getpid(), signal.SIGTERM)
                while outcomes != [[[]], [[]]]:  # noqa: ASYNC110  # a signal has no event
                    await anyio.sleep(0.001)

    def test_in_another_thread_it_is_refused(self) -> None:
        errors: list[BaseException] = []

        def enter() -> None:
            try:
                with stop_on_signals(SimpleNamespace(stop=print)):
                    raise AssertionError("Python allows that in the main thread only")
            except ConsumerStateError as error:
                errors.append(error)

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        assert "main thread" in str(errors[0])

    @pytest.mark.parametrize("backend", ["asyncio", "trio"])
    @pytest.mark.parametrize(("signals", "code"), [(1, 0), (2, 128 + signal.SIGTERM)])
    def test_the_second_one_ends_the_process_at_once(self, backend: str, signals: int, code: int) -> None:
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(PROGRAM), backend],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        with process:
            assert process.stdout is not None
            assert process.stdout.readline() == "at work\n"
            process.terminate()
            assert process.stdout.readline() == "asked\n"
            if signals == 2:
                process.terminate()
            else:
                process.send_signal(signal.SIGUSR1)

            assert process.wait(10) == code
            assert process.stdout.read() == ("" if signals == 2 else "handled\nleft\n")


PROGRAM = """
import signal, sys, threading
from types import SimpleNamespace
import anyio, rustmq_sdk

async def main():
    asked, release = threading.Event(), threading.Event()
    signal.signal(signal.SIGUSR1, lambda *_: release.set())
    async with rustmq_sdk.Client("memory://") as client, client.producer() as producer:
        await producer.send("t", "m")
        async with client.consumer("t", group="g") as consumer:

            async def handler(message):
                print("at work", flush=True)
                while not asked.is_set():
                    await anyio.sleep(0.001)

                print("asked", flush=True)
                while not release.is_set():
                    await anyio.sleep(0.001)

                print("handled", flush=True)

            with rustmq_sdk.stop_on_signals(consumer, SimpleNamespace(stop=asked.set)):
                await consumer.run(handler)

    print("left", flush=True)

anyio.run(main, backend=sys.argv[1])
"""


class Sticky:
    """A source whose connection never finishes closing."""

    def __init__(self, driver: MemoryDriver) -> None:
        self._source = driver.source(SourceRequest(topics=["t"], group=GROUP, lease=30, revoke_budget=5))
        self.asked_to_leave = False

    @property
    def capabilities(self) -> Capabilities:
        return self._source.capabilities

    @asynccontextmanager
    async def subscribe(self, listener: AssignmentListener) -> AsyncIterator[Any]:
        async with self._source.subscribe(listener) as subscription:
            yield subscription
            self.asked_to_leave = True
            await anyio.sleep_forever()


class Polite(Sticky):
    """A source whose client finishes a rebalance that is going on before it leaves."""

    left = False

    @asynccontextmanager
    async def subscribe(self, listener: AssignmentListener) -> AsyncIterator[Any]:
        finished = anyio.Event()
        revoking = listener.revoking

        async def revoke(assignments: Collection[Assignment], budget: float) -> None:
            await revoking(assignments, 300)
            finished.set()

        told = SimpleNamespace(revoking=revoke, lost=listener.lost, assigned=listener.assigned)
        async with self._source.subscribe(told) as subscription:
            yield subscription
            await finished.wait()
            self.left = True


class Unreachable(Sticky):
    """A source nobody answers for."""

    @asynccontextmanager
    async def subscribe(self, listener: AssignmentListener) -> AsyncIterator[Any]:
        async with self._source.subscribe(listener) as subscription:
            await self._connect()
            yield subscription

    async def _connect(self) -> None:
        raise PermanentDriverError("no such host", slot="source", operation="subscribe")


class Slow(Unreachable):
    """A source that answers after a while."""

    async def _connect(self) -> None:
        await anyio.sleep(5)


async def _collect(consumer: Consumer) -> list[Message]:
    return [message async for message in consumer]


async def _all_at_hand(consumer: Consumer) -> list[Message]:
    messages = []
    while True:
        try:
            messages.append(await consumer.receive(1))
        except TimeoutError:
            return messages
