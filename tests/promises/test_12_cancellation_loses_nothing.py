"""Promise 12: a cancelled ``receive()`` leaves its messages where they were, whoever cancels it and how."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import anyio
import pytest
import sniffio

from rustmq_sdk import AckResult, Consumer, Message, Messages, RetryPolicy
from rustmq_sdk.testing import BACKENDS
from rustmq_sdk.testing import run as run_test
from rustmq_sdk.testing.clock import Backend
from tests.promises.stage import (
    Stage,
    ack,
    in_background,
    numbered,
    passes,
    take,
    take_all,
    texts,
)

pytestmark = pytest.mark.virtual_time


async def by_scope(call: Callable[[], Awaitable[Any]], after: float) -> Any:
    with anyio.move_on_after(after):
        return await call()


async def by_receive_timeout(call: Callable[[], Awaitable[Any]], after: float) -> Any:
    try:
        with anyio.fail_after(after):
            return await call()
    except TimeoutError:
        return None


async def by_asyncio_timeout(call: Callable[[], Awaitable[Any]], after: float) -> Any:
    try:
        async with asyncio.timeout(after):
            return await call()
    except TimeoutError:
        return None


async def by_wait_for(call: Callable[[], Awaitable[Any]], after: float) -> Any:
    async def receive() -> Any:
        return await call()

    try:
        return await asyncio.wait_for(receive(), after)
    except TimeoutError:
        return None


async def by_task_cancel(call: Callable[[], Awaitable[Any]], after: float) -> Any:
    async def receive() -> Any:
        return await call()

    task = asyncio.ensure_future(receive())
    asyncio.get_running_loop().call_later(after, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        return None


WAYS = [by_scope, by_receive_timeout, by_asyncio_timeout, by_wait_for, by_task_cancel]


def only_where_it_exists(way: Callable[..., Any]) -> None:
    if way not in (by_scope, by_receive_timeout) and sniffio.current_async_library() != "asyncio":
        pytest.skip("asyncio's own")


@pytest.mark.parametrize("way", WAYS)
class TestReceive:
    async def test_what_comes_after_the_cancellation_is_still_there(self, either: Stage, way: Any) -> None:
        only_where_it_exists(way)
        either.create()
        async with either.consumer() as consumer:
            for _ in range(3):
                assert await way(consumer.receive, 3) is None

            either.send(5)
            assert texts(await take_all(consumer)) == numbered(5)

    @pytest.mark.parametrize("delay", [2.0, 1.999, 2.001])
    async def test_a_message_that_comes_at_the_very_moment_is_not_lost(
        self, either: Stage, way: Any, delay: float
    ) -> None:
        only_where_it_exists(way)
        either.create()
        async with either.consumer() as consumer, anyio.create_task_group() as group:
            await passes(0.5)
            seen: list[str] = []
            for number in range(20):

                async def send() -> None:
                    await passes(delay)
                    either.send(1)  # runs within the round

                group.start_soon(send)
                message = await way(consumer.receive, 2.0)
                if message is None:
                    message = await consumer.receive(5)

                seen.append(message.text())
                assert len(seen) == number + 1

            assert seen == numbered(20)

    async def test_a_cancelled_batch_leaves_its_messages_in_order(self, either: Stage, way: Any) -> None:
        only_where_it_exists(way)
        either.send(7)
        async with either.consumer() as consumer:
            for _ in range(3):
                assert await way(lambda: consumer.receive_batch(100, 50), 2) is None

            either.send(3)
            batch = await consumer.receive_batch(100, 1)
            assert texts(batch) == numbered(10)

    async def test_receivers_that_are_not_cancelled_get_what_the_others_leave(self, either: Stage, way: Any) -> None:
        only_where_it_exists(way)
        either.create()
        async with either.consumer() as consumer, anyio.create_task_group() as group:
            patient = [await in_background(group, consumer.receive, 300) for _ in range(5)]

            async def hasty() -> None:
                got = await way(consumer.receive, 1.0)
                hasty_got.append(got)

            hasty_got: list[Message | None] = []
            for _ in range(5):
                group.start_soon(hasty)

            await passes(1.0)
            either.send(5)
            await passes(5)
            got = [message for message in hasty_got if message is not None]
            got += [message for outcome in patient for message in outcome]
            assert sorted(texts(got)) == numbered(5)
            either.send(5 - sum(bool(outcome) for outcome in patient))
            await passes(1)


class TestEverywhere:
    @pytest.mark.parametrize("backend", BACKENDS)
    @pytest.mark.parametrize("seed", range(10))
    def test_random_cancellation_of_everything_loses_and_doubles_nothing(self, backend: Backend, seed: int) -> None:
        rng = Random(seed)
        stage = Stage("log" if seed % 2 else "queue")
        stage.create()
        seen: list[str] = []

        async def receiver(consumer: Consumer) -> None:
            while len(seen) < 200:
                with anyio.move_on_after(rng.choice([0, 0.001, 0.01, 0.05])):
                    if rng.random() < 0.3:
                        for message in await consumer.receive_batch(rng.randint(1, 9), rng.choice([0, 0.02])):
                            seen.append(message.text())
                            await message.ack()
                    else:
                        message = await consumer.receive()
                        seen.append(message.text())
                        await message.ack()

                with anyio.CancelScope() as scope:
                    scope.cancel()
                    await anyio.lowlevel.checkpoint()

                await passes(0.001)

        async def live() -> None:
            async with stage.consumer(prefetch=10, max_in_flight=15) as consumer, anyio.create_task_group() as group:
                for _ in range(6):
                    group.start_soon(receiver, consumer)

                for _ in range(40):
                    await passes(rng.random() / 20)
                    stage.send(5)

        run_test(live, backend=backend, seed=seed, limit=1000)
        assert sorted(seen) == sorted(numbered(200))
        stage.close()

    async def test_a_receive_in_a_cancelled_scope_takes_nothing_if_it_raises(self, either: Stage) -> None:
        either.send(3)
        async with either.consumer() as consumer:
            await passes(1)
            got: list[Message] = []
            with anyio.CancelScope() as scope:
                scope.cancel()
                got.append(await consumer.receive())
                got.append(await consumer.receive())

            rest = await take_all(consumer)
            assert texts(got + rest) == numbered(3)

    async def test_a_handler_that_is_cancelled_releases_its_message_and_its_attempt(self, either: Stage) -> None:
        either.send(5)
        started: list[tuple[str, int]] = []

        async def handler(message: Message) -> None:
            started.append((message.text(), message.attempt))
            await passes(100)

        async with either.consumer() as consumer:
            with anyio.move_on_after(10):
                await consumer.run(handler, concurrency=3, ordering="none")

            assert sorted(started) == [(body, 1) for body in numbered(3)]
            again = await take_all(consumer)
            assert sorted(texts(again)) == numbered(5)
            assert {message.attempt for message in again} == {1}

    @pytest.mark.parametrize("batch_size", [None, 2])
    async def test_run_goes_on_where_something_that_its_handler_awaits_is_cancelled(
        self, either: Stage, batch_size: int | None
    ) -> None:
        only_where_it_exists(by_task_cancel)
        either.send(6)
        handled: list[tuple[str, int]] = []

        async def handler(given: Message | Messages) -> None:
            batch = [given] if isinstance(given, Message) else given
            handled.extend((message.text(), message.attempt) for message in batch)
            if len(handled) <= 2:
                task = asyncio.ensure_future(anyio.sleep_forever())
                task.cancel()
                await task

        policy = RetryPolicy(initial=5, jitter="none")
        async with either.consumer(retry=policy) as consumer, anyio.create_task_group() as group:
            outcome = await in_background(group, lambda: consumer.run(handler, batch_size=batch_size))
            await passes(60)
            assert outcome == []
            assert sorted(handled) == [(f"m{n}", attempt) for n in range(6) for attempt in ((1, 2) if n < 2 else (1,))]
            assert consumer.statistics().in_flight == 0
            consumer.stop()

        assert outcome == [None]

    async def test_a_natively_cancelled_run_releases_its_messages(self, either: Stage) -> None:
        only_where_it_exists(by_task_cancel)
        either.send(5)

        async def handler(message: Message) -> None:
            await anyio.sleep_forever()

        async with either.consumer() as consumer:
            task = asyncio.ensure_future(consumer.run(handler, concurrency=3))
            await passes(5)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

            assert [message.attempt for message in await take(consumer, 5)] == [1] * 5

    async def test_a_cancelled_block_around_a_message_releases_it(self, either: Stage) -> None:
        either.send(1)
        async with either.consumer() as consumer:
            first = await consumer.receive(5)
            with anyio.move_on_after(1):
                async with first:
                    await passes(10)

            again = await consumer.receive(5)
            assert (again.text(), again.attempt) == ("m0", 1)
            assert await first.ack() is AckResult.DUPLICATE
            assert await again.ack() is AckResult.RECORDED

    async def test_the_end_of_the_iteration_by_cancellation_can_be_gone_on_from(self, either: Stage) -> None:
        either.send(3)
        seen: list[str] = []
        async with either.consumer() as consumer:
            for _ in range(4):
                with anyio.move_on_after(2):
                    async for message in consumer:
                        seen.append(message.text())
                        await message.ack()

                either.send(2)

        assert seen == numbered(9)

    async def test_a_cancelled_durable_batch_is_settled(self, either: Stage) -> None:
        either.plan.breaks("source.commit", "source.settle", kind="hang")
        either.send(5)
        async with either.consumer() as consumer:
            batch = await consumer.receive_batch(5)
            with anyio.move_on_after(1):
                await batch.ack(durable=True)

            assert {await message.ack() for message in batch} == {AckResult.DUPLICATE}
            either.plan.heals()

    async def test_a_natively_cancelled_task_around_the_consumer_commits_what_was_acked(self, either: Stage) -> None:
        only_where_it_exists(by_task_cancel)
        either.send(10)

        async def program() -> None:
            async with either.consumer(commit_interval=3600) as consumer:
                await ack(*(await take(consumer, 6)))
                await passes(1000)

        task = asyncio.ensure_future(program())
        await passes(5)
        task.cancel()
        with cancelled():
            await task

        async with either.consumer() as consumer:
            assert texts(await take_all(consumer, quiet=60)) == numbered(4, 6)

    async def test_an_asyncio_timeout_around_the_consumer_commits_what_was_acked(self, stage: Stage) -> None:
        only_where_it_exists(by_asyncio_timeout)
        stage.send(10)
        with pytest.raises(TimeoutError):
            await self._work_for(stage, 5)

        assert stage.committed() == 6

    async def _work_for(self, stage: Stage, seconds: float) -> None:
        async with asyncio.timeout(seconds), stage.consumer(commit_interval=3600) as consumer:
            await ack(*(await take(consumer, 6)))
            await passes(1000)

    async def test_a_second_native_cancellation_while_closing_does_not_lose_the_commit(self, stage: Stage) -> None:
        only_where_it_exists(by_task_cancel)
        stage.send(10)

        async def program() -> None:
            async with stage.consumer(commit_interval=3600) as consumer:
                await ack(*(await take(consumer, 6)))
                await passes(1000)

        task = asyncio.ensure_future(program())
        await passes(5)
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        with cancelled():
            await task

        await passes(30)
        assert stage.committed() in (6, None)
        async with stage.consumer() as consumer:
            assert {"m6", "m7", "m8", "m9"} <= set(texts(await take_all(consumer, quiet=60)))


@contextmanager
def cancelled() -> Iterator[None]:
    with pytest.raises(asyncio.CancelledError):
        yield
