"""Promise 12: a cancellation that comes from nowhere ends nothing in silence, and loses nothing.

Somebody cancels all tasks of the loop, a client cancels what we await, somebody else's function raises the loop's
exception by mistake. What is ours cannot go on then, and says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, NoReturn

import anyio
import pytest

from rustmq_sdk import Consumer, DeadLetter, Message, PermanentDriverError, RetryPolicy
from rustmq_sdk.drivers.memory import open as open_memory
from rustmq_sdk.observe import EVENTS
from rustmq_sdk.slots import SourceRequest
from tests.promises.stage import DLQ, TP, Stage, handle_all, numbered, passes, take, texts, until

pytestmark = pytest.mark.virtual_time


@pytest.fixture
def on_asyncio(anyio_backend_name: str) -> None:
    """trio has no cancellation but by scopes, and ours are shielded."""
    if anyio_backend_name != "asyncio":
        pytest.skip("only asyncio cancels a task natively")


def cancel_task(name: str) -> None:
    """What a program does that cancels all tasks of its loop, or a wrong one."""
    (task,) = [task for task in asyncio.all_tasks() if task.get_name() == f"rustmq_sdk {name}"]
    assert task.cancel()


@asynccontextmanager
async def ending_in_time(seconds: float) -> AsyncIterator[None]:
    start = anyio.current_time()
    yield
    assert anyio.current_time() - start <= seconds


@pytest.mark.usefixtures("on_asyncio")
class TestOfOurTasks:
    @pytest.mark.parametrize("task", ["subscription", "fetcher", "ack-handler", "redelivery", "dead letters", "leases"])
    async def test_it_is_told_and_nothing_is_lost(self, either: Stage, task: str) -> None:
        if task == "leases" and either.kind == "log":
            pytest.skip("a log has no leases")

        either.send(10)
        handled: list[str] = []
        options: Any = {"dead_letter_topic": DLQ, "prefetch": 4, "close_timeout": 10}
        async with ending_in_time(40), either.consumer(**options) as consumer:
            await settle(consumer, handled, 3)
            cancel_task(task)
            with pytest.raises(PermanentDriverError, match="cancelled by somebody else"):
                await settle(consumer, handled, 10)

            assert consumer.health().state == "failed"

        async with either.consumer() as consumer:
            handled += await handle_all(consumer, quiet=60)

        assert sorted(set(handled)) == numbered(10)

    async def test_run_ends_with_it(self, either: Stage) -> None:
        either.send(10)

        async def handler(message: Message) -> None:
            if message.text() == "m5":
                cancel_task("fetcher")

        async with either.consumer(close_timeout=10) as consumer:
            with pytest.raises(PermanentDriverError, match="cancelled by somebody else"):
                await consumer.run(handler)

    async def test_a_consumer_that_asks_for_nothing_more_tells_it_when_it_is_left(self, stage: Stage) -> None:
        stage.send(1)
        with pytest.raises(PermanentDriverError, match="cancelled by somebody else"):  # noqa: PT012  # on leaving
            async with stage.consumer(close_timeout=2) as consumer:
                await consumer.receive(5)
                cancel_task("subscription")
                await passes(1)

    async def test_a_retry_whose_body_is_being_read_comes_again(self, stage: Stage) -> None:
        stage.send(3)
        stage.plan.breaks("source.read", kind="hang")
        retry = RetryPolicy(initial=1, jitter="none")
        async with stage.consumer(cache_messages=0, retry=retry, close_timeout=2) as consumer:
            first, second, third = await take(consumer, 3)
            await first.ack()
            await third.ack()
            await second.nack()
            await until(lambda: stage.plan.calls["source.read"])
            cancel_task("redelivery")
            with pytest.raises(PermanentDriverError, match="cancelled by somebody else"):
                await consumer.receive(60)

        stage.plan.heals()
        async with stage.consumer() as consumer:
            again = await consumer.receive(60)
            assert (again.text(), again.attempt) == ("m1", 2)

    async def test_a_letter_that_is_being_written_is_written_by_the_next_consumer(self, stage: Stage) -> None:
        stage.send(1)
        stage.plan.breaks("dead_letters.put", kind="hang")
        async with stage.consumer(dead_letter_topic=DLQ, close_timeout=2) as consumer:
            await (await consumer.receive(5)).reject()
            await until(lambda: stage.plan.calls["dead_letters.put"])
            cancel_task("dead letters")
            with pytest.raises(PermanentDriverError, match="cancelled by somebody else"):
                await consumer.receive(60)

        assert stage.committed() in (None, 0)
        stage.plan.heals()
        async with stage.consumer(dead_letter_topic=DLQ) as consumer:
            await (await consumer.receive(60)).reject()

        assert len(stage.letters) == 1
        assert stage.committed() == 1

    async def test_while_it_connects_entering_says_so(self) -> None:
        class Cancelled(AbstractAsyncContextManager[Any]):
            """A source whose client cancels what we await."""

            def __init__(self, capabilities: Any) -> None:
                self.capabilities = capabilities

            def subscribe(self, listener: object) -> Cancelled:
                return self

            async def __aenter__(self) -> NoReturn:
                raise asyncio.CancelledError

            async def __aexit__(self, *exc_info: object) -> None:
                raise AssertionError("never entered")

        request = SourceRequest(topics=["t"], group="g", lease=30, revoke_budget=5)
        async with open_memory("memory://") as driver:
            capabilities = driver.source(request).capabilities
            with anyio.fail_after(5), pytest.raises(PermanentDriverError, match="cancelled by somebody else"):
                async with Consumer(Cancelled(capabilities), group="g"):
                    raise AssertionError("never entered")


async def settle(consumer: Consumer, handled: list[str], most: int) -> None:
    """Receives and acks."""
    for _ in range(most):
        message = await consumer.receive(20)
        await message.ack()
        handled.append(message.text())


class TestOfOthersFunctions:
    @pytest.mark.parametrize("event", EVENTS)
    async def test_an_observer_that_raises_one_is_reported_and_disturbs_nothing(
        self, either: Stage, event: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        calls = 0

        def fails(*details: object) -> None:
            nonlocal calls
            calls += 1
            raise asyncio.CancelledError

        observer = type("Stray", (), {f"on_{event}": staticmethod(fails)})()
        either.send(20)
        handled: list[str] = []

        async def handler(message: Message) -> None:
            handled.append(message.text())
            if message.text() == "m3" and message.attempt == 1:
                raise ValueError("once")

            if message.text() == "m19":
                consumer.stop()

        retry = RetryPolicy(initial=0)
        async with either.consumer(observers=[observer], retry=retry) as consumer:
            consumer.pause_partitions([TP])
            consumer.resume_partitions([TP])
            await consumer.run(handler)

        async with either.consumer() as consumer:
            handled += await handle_all(consumer)

        assert sorted(set(handled)) == sorted(numbered(20))
        assert caplog.text.count("an observer failed in on_") == calls
        if event in ("received", "settled", "rebalanced", "retried", "paused", "resumed"):
            assert calls

    @pytest.mark.usefixtures("on_asyncio")
    async def test_an_observer_that_cancels_the_task_it_is_called_in_is_told(self, stage: Stage) -> None:
        class Wrong:
            def on_received(self, *details: object) -> None:
                task = asyncio.current_task()
                assert task is not None
                task.cancel()

        stage.send(5)
        async with stage.consumer(observers=[Wrong()], close_timeout=2) as consumer:
            with pytest.raises(PermanentDriverError, match="cancelled by somebody else"):
                await handle_all(consumer)

    async def test_a_route_for_dead_letters_that_raises_one_ends_the_consumer_and_loses_no_letter(
        self, stage: Stage
    ) -> None:
        async def put(letters: Sequence[DeadLetter]) -> None:
            raise asyncio.CancelledError

        stage.send(2)
        async with stage.consumer(dead_letters=put, close_timeout=2) as consumer:
            await (await consumer.receive(5)).reject()
            # On trio it is an exception like others, and reaches the user as itself.
            with pytest.raises((PermanentDriverError, asyncio.CancelledError)):
                await take(consumer, 2)

        async with stage.consumer() as consumer:
            assert texts(await take(consumer, 2)) == numbered(2)
