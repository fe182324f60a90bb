"""A source on an island: what becomes of errors and cancellations."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import anyio
import pytest

from rustmq_sdk._asyncio_island import Island
from rustmq_sdk._threads import Reply
from rustmq_sdk.errors import IslandClosed, PermanentDriverError, UnknownTopic, Unsupported
from tests.unit.asyncio_source import NEW, OLD, AsyncioSource, Listener, fetch, subscribed
from tests.unit.asyncio_source import island as island
from tests.unit.asyncio_source import listener as listener
from tests.unit.asyncio_source import source as source

# Errors


async def test_a_seek_that_the_source_does_not_claim_is_refused_at_once(island: Island, listener: Listener) -> None:
    source = AsyncioSource(seek=False)
    async with subscribed(source, island, listener) as subscription:
        with pytest.raises(Unsupported, match="seek"):
            subscription.seek(OLD, NEW, 0)


async def test_a_seek_that_failed_is_raised_by_every_fetch_from_then_on(
    source: AsyncioSource, island: Island, listener: Listener
) -> None:
    source.seeking = lambda: 1 // 0
    begun = Reply[None]()

    async def wait() -> None:
        begun.set(None)
        await source.wait()

    source.fetching = wait
    async with subscribed(source, island, listener) as subscription, anyio.create_task_group() as tasks:
        tasks.start_soon(fetch, subscription)
        await begun.wait()
        subscription.seek(OLD, NEW, 7)  # ends the fetch that waits as well
        for _ in range(2):
            with pytest.raises(PermanentDriverError, match="seek: ZeroDivisionError") as raised:
                await fetch(subscription)

            assert isinstance(raised.value.__cause__, ZeroDivisionError)


async def test_an_error_of_a_call_is_raised_as_it_is(source: AsyncioSource, island: Island, listener: Listener) -> None:
    async def fail() -> None:
        raise UnknownTopic("no topic", slot="source", operation="fetch")

    source.fetching = fail
    async with subscribed(source, island, listener) as subscription:
        with pytest.raises(UnknownTopic):
            await fetch(subscription)


async def test_a_cancellation_over_there_that_is_nobodys_is_an_error_of_the_driver(
    source: AsyncioSource, island: Island, listener: Listener
) -> None:
    async def cancel_itself() -> None:
        raise asyncio.CancelledError

    source.fetching = cancel_itself
    async with subscribed(source, island, listener) as subscription:
        with pytest.raises(PermanentDriverError, match=r"fetching messages: .*cancelled"):
            await fetch(subscription)

    source.joining = cancel_itself
    with pytest.raises(PermanentDriverError, match=r"subscribing: .*cancelled"):
        async with subscribed(source, island, listener):
            raise AssertionError("never entered")


async def test_an_error_of_entering_is_raised_as_itself(
    source: AsyncioSource, island: Island, listener: Listener
) -> None:
    async def refuse() -> None:
        raise UnknownTopic("no topic", slot="source", operation="subscribe")

    source.joining = refuse
    with pytest.raises(UnknownTopic):
        async with subscribed(source, island, listener):
            raise AssertionError("never entered")

    assert source.seen == ["joining", "left"]


async def test_an_error_of_leaving_is_raised_as_itself(
    source: AsyncioSource, island: Island, listener: Listener
) -> None:
    async def fail() -> None:
        raise PermanentDriverError("the disk is full", slot="source", operation="leave")

    source.leaving = fail
    with pytest.raises(PermanentDriverError, match="disk is full"):
        async with subscribed(source, island, listener):
            pass


async def test_an_error_of_the_block_is_raised_as_itself_and_the_source_is_left(
    source: AsyncioSource, island: Island, listener: Listener
) -> None:
    with pytest.raises(KeyError, match="the user's"):
        async with subscribed(source, island, listener):
            raise KeyError("the user's")

    assert source.seen == ["joining", "left"]


async def test_a_source_that_ends_by_itself_ends_the_block_with_its_error(
    source: AsyncioSource, island: Island, listener: Listener
) -> None:
    hosts: list[asyncio.Task[Any] | None] = []

    async def note_the_task() -> None:
        hosts.append(asyncio.current_task())

    async def use() -> None:
        async with subscribed(source, island, listener):
            (host,) = hosts
            assert host is not None
            island.post(host.cancel)
            await anyio.sleep_forever()

    source.joining = note_the_task
    with anyio.fail_after(30), pytest.raises(PermanentDriverError, match="cancelled"):
        await use()

    assert source.seen == ["joining", "left"]


async def test_a_listeners_error_reaches_the_source(source: AsyncioSource, island: Island, listener: Listener) -> None:
    async def fail() -> None:
        raise ValueError("of the listener")

    async def revoke() -> str:
        try:
            await source.listener.revoking([OLD], 1.0)
        except ValueError as error:
            return str(error)

        return "no error"

    listener.answering = fail
    async with subscribed(source, island, listener):
        assert await island.run(revoke) == "of the listener"


# Cancellation


async def test_a_subscribe_that_is_cancelled_while_it_connects_has_left(
    source: AsyncioSource, island: Island, listener: Listener
) -> None:
    begun = Reply[None]()

    async def connect() -> None:
        begun.set(None)
        await asyncio.sleep(3600)

    async def use() -> None:
        async with subscribed(source, island, listener):
            raise AssertionError("never entered")

    source.joining = connect
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(use)
        await begun.wait()
        tasks.cancel_scope.cancel()

    assert source.seen == ["joining", "left"]


async def test_a_cancelled_block_has_left_and_its_listener_calls_are_over(
    source: AsyncioSource, island: Island, listener: Listener
) -> None:
    revoking, revoked = anyio.Event(), []

    async def drain() -> None:
        revoking.set()
        try:
            await anyio.sleep_forever()
        finally:
            revoked.append(True)

    async def revoke() -> None:
        tasks.append(asyncio.ensure_future(source.listener.revoking([OLD], 1.0)))

    async def stop_revoking() -> None:
        await asyncio.wait(tasks)
        assert isinstance(tasks[0].exception(), Exception)

    tasks: list[asyncio.Task[None]] = []
    listener.answering, source.leaving = drain, stop_revoking
    with anyio.fail_after(30), anyio.CancelScope() as scope:
        async with subscribed(source, island, listener):
            await island.run(revoke)
            await revoking.wait()
            scope.cancel()
            await anyio.sleep_forever()

    assert source.seen == ["joining", "left"]
    assert revoked == [True]


async def test_leaving_waits_for_a_listener_call_that_the_source_waits_for(
    source: AsyncioSource, island: Island, listener: Listener
) -> None:
    async def finish_the_rebalance() -> None:
        await source.listener.revoking([OLD], 1.0)

    source.leaving = finish_the_rebalance
    async with subscribed(source, island, listener):
        pass

    assert listener.seen == ["revoking"]


async def test_a_cancelled_block_is_left_in_time_although_the_islands_loop_is_busy(
    source: AsyncioSource, listener: Listener
) -> None:
    begun, released = Reply[None](), threading.Event()

    def block() -> None:
        begun.set(None)
        assert released.wait(50)

    async with Island("busy", thread=True, patience=0.2) as island:
        with anyio.fail_after(30), anyio.CancelScope() as scope:
            async with subscribed(source, island, listener):
                island.post(block)
                await begun.wait()
                scope.cancel()
                await anyio.sleep_forever()

        assert source.seen == ["joining"]
        released.set()
        await island.run(asyncio.sleep, 0)
        await island.run(asyncio.sleep, 0)
        assert source.seen == ["joining", "left"], "it leaves as soon as it can"


async def test_whoever_cancels_all_tasks_of_the_loop_ends_a_subscription_as_an_error(
    source: AsyncioSource, island: Island, listener: Listener, anyio_backend_name: str
) -> None:
    if anyio_backend_name != "asyncio":
        pytest.skip("about asyncio alone")

    async def use(name: str) -> None:
        async with subscribed(source, island, listener):
            (task,) = [task for task in asyncio.all_tasks() if task.get_name() == name]
            task.cancel()
            await anyio.sleep_forever()

    for name in ("rustmq_sdk island", "rustmq_sdk listener"):
        with anyio.fail_after(30), pytest.raises(PermanentDriverError, match="somebody else"):
            await use(name)

    assert source.seen == ["joining", "left"] * 2


async def test_an_island_that_is_closed_too_early_ends_the_block_with_an_error(
    source: AsyncioSource, listener: Listener
) -> None:
    async def use(island: Island) -> None:
        async with subscribed(source, island, listener) as subscription:
            await island.__aexit__()
            subscription.wake()
            await anyio.sleep_forever()

    async with Island("closed too early", thread=True) as island:
        with anyio.fail_after(30), pytest.raises(IslandClosed, match="was closed"):
            await use(island)

    assert source.seen == ["joining", "left"]
