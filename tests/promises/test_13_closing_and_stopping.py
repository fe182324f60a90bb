"""Promise 13, by whoever asks for it: ``close()`` and ``stop()``, from tasks, handlers, loops and threads."""

from __future__ import annotations

import threading

import anyio
import pytest

from rustmq_sdk import AckResult, Consumer, ConsumerClosed, Message, StalePartition
from rustmq_sdk._threads import run_in_daemon_thread
from tests.promises.hard_shutdowns import work_for_ever
from tests.promises.stage import Stage, handle_all, in_background, numbered, passes, take


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
            with pytest.raises(StalePartition, match=r": the consumer was closed before the message was settled"):
                await held[1].ack(durable=True)

        assert await held[2].ack() is AckResult.STALE
        async with either.consumer() as consumer:
            assert await handle_all(consumer) == numbered(9, 1)

    async def test_a_durable_ack_that_it_cuts_off_is_told_why(self, either: Stage) -> None:
        either.send(1)
        either.plan.breaks(either.settling)
        async with either.consumer(commit_timeout=20) as consumer, anyio.create_task_group() as group:
            (message,) = await take(consumer, 1)
            waiting = await in_background(group, message.ack, True)
            await consumer.close()
            await anyio.wait_all_tasks_blocked()
            (error,) = waiting
            assert isinstance(error, StalePartition)
            assert "the consumer was closed before the broker had its position" in str(error)

    async def test_a_partition_that_was_lost_before_it_is_not_blamed_on_it(self, stage: Stage) -> None:
        stage.send(1)
        async with stage.consumer() as consumer:
            (message,) = await take(consumer, 1)
            await consumer.seek("t", 0, 0)
            await consumer.close()
            with pytest.raises(StalePartition, match="the partition was lost, or moved by a seek, before the message"):
                await message.ack(durable=True)

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

    @pytest.mark.parametrize("end", ["close", "stop"])
    async def test_a_plain_handler_that_is_left_at_work_is_said(
        self, either: Stage, end: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        either.send(3)
        release, at_work = threading.Event(), threading.Semaphore(0)

        def handler(message: Message) -> None:
            at_work.release()
            release.wait()

        try:
            async with either.consumer(close_timeout=0.5) as consumer, anyio.create_task_group() as group:
                group.start_soon(lambda: consumer.run(handler, concurrency=2, ordering="none"))
                with anyio.fail_after(10):
                    for _ in range(2):
                        await run_in_daemon_thread(at_work.acquire)

                consumer.stop() if end == "stop" else await consumer.close()
        finally:
            release.set()

        (said,) = [record for record in caplog.records if getattr(record, "event", "") == "handlers_cut_off"]
        assert said.levelname == "WARNING"
        assert said.getMessage() == (
            "handlers still at work after the 0.3 s that close_timeout=0.5 leaves them: 2. They go on in their "
            "threads, unheard, and their messages come again"
        )

    async def test_a_handler_that_ends_in_time_is_not_worth_a_word(
        self, either: Stage, caplog: pytest.LogCaptureFixture
    ) -> None:
        either.send(3)
        async with either.consumer() as consumer, anyio.create_task_group() as group:
            group.start_soon(consumer.run, lambda message: consumer.stop())

        async with either.consumer() as consumer:
            with anyio.move_on_after(0.1):
                await consumer.run(lambda message: anyio.sleep(3600))  # cancelled by its caller, who knows

        assert not [record for record in caplog.records if getattr(record, "event", "") == "handlers_cut_off"]

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


async def _collect(consumer: Consumer) -> list[Message]:
    return [message async for message in consumer]
