"""Promise 13, at the end of the block: what is settled is committed, the rest goes back; and it is entered once."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from rustmq_sdk import Consumer, ConsumerStateError, Message, RetryPolicy
from rustmq_sdk.drivers.memory import MemoryDriver
from tests.promises.hard_shutdowns import Slow, group_is_empty
from tests.promises.stage import GROUP, Stage, ack, handle_all, in_background, numbered, passes, take, until


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


async def _collect(consumer: Consumer) -> list[Message]:
    return [message async for message in consumer]
