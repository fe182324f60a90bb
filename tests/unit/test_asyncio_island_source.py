"""A source on an island: what is done in which order.

That it keeps the promises of the slots is shown by ``tests/contract/test_asyncio_island.py``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import cast

import anyio

from rustmq_sdk._asyncio_island import Island, across
from rustmq_sdk._threads import Reply
from rustmq_sdk.slots import AssignmentListener, LogSubscription, Source
from tests.unit.asyncio_source import NEW, OLD, TP, AsyncioSource, Listener, call_lost, fetch, nothing, subscribed
from tests.unit.asyncio_source import island as island
from tests.unit.asyncio_source import listener as listener
from tests.unit.asyncio_source import source as source


async def test_on_the_callers_own_loop_a_source_is_used_as_it_is(
    source: AsyncioSource, anyio_backend_name: str
) -> None:
    async with Island("under test") as island:
        used = across(cast("Source", source), island)
        assert (used is cast("Source", source)) == (anyio_backend_name == "asyncio")
        assert used.capabilities is source.capabilities


async def test_wakes_seeks_and_calls_are_done_in_the_order_in_which_they_were_made(
    source: AsyncioSource, island: Island, listener: Listener
) -> None:
    source.fetching = nothing
    expected: list[object] = ["joining"]
    async with subscribed(source, island, listener) as subscription:
        for offset in range(0, 60, 2):
            subscription.seek(OLD, NEW, offset)
            subscription.wake()
            subscription.seek(OLD, NEW, offset + 1)
            await fetch(subscription)
            subscription.wake()
            await subscription.commit({})
            expected += [offset, "wake", offset + 1, "fetch", "wake", "commit"]

    assert source.seen == [*expected, "left"]


async def test_a_seek_after_assigned_answered_finds_that_the_source_has_taken_the_answer(
    source: AsyncioSource, island: Island, listener: Listener
) -> None:
    answered = anyio.Event()

    async def answer() -> None:
        answered.set()

    async def take() -> None:
        await source.listener.assigned([TP], 1)
        source.seen.append("taken")

    listener.answering = answer
    async with subscribed(source, island, listener) as subscription, anyio.create_task_group() as tasks:
        for offset in range(100):
            answered = anyio.Event()
            source.seen.clear()
            tasks.start_soon(island.run, take)
            await answered.wait()
            await anyio.lowlevel.checkpoint()  # asyncio wakes this task first, trio sometimes
            subscription.seek(OLD, NEW, offset)
            await island.run(asyncio.sleep, 0)
            assert source.seen == ["taken", offset]


async def test_no_fetch_result_crosses_a_listener_call(
    source: AsyncioSource, island: Island, listener: Listener
) -> None:
    async def revoke_at_once() -> None:
        tasks.append(asyncio.ensure_future(source.listener.revoking([OLD], 1.0)))
        tasks.append(asyncio.ensure_future(source.listener.lost([OLD])))

    tasks: list[asyncio.Task[None]] = []
    source.fetching = revoke_at_once
    async with subscribed(source, island, listener) as subscription:
        for _ in range(200):
            (piece,) = await fetch(subscription, OLD)
            listener.seen.append(piece.assignment)
            while len(listener.seen) < 3:
                await anyio.lowlevel.checkpoint()

            assert listener.seen == [OLD, "revoking", "lost"]
            listener.seen.clear()


async def test_a_fetch_that_went_out_before_the_listener_knew_is_ended(
    source: AsyncioSource, island: Island, listener: Listener
) -> None:
    begun = Reply[None]()

    async def wait() -> None:
        begun.set(None)
        await source.wait()

    source.fetching = wait
    async with subscribed(source, island, listener) as subscription, anyio.create_task_group() as tasks:
        tasks.start_soon(fetch, subscription)
        await begun.wait()
        with anyio.fail_after(30):
            await island.run(call_lost, source)

    assert source.seen == ["joining", "fetch", "wake", "left"]


async def test_a_listener_call_without_a_fetch_leaves_the_next_one_waiting(
    source: AsyncioSource, island: Island, listener: Listener
) -> None:
    async with subscribed(source, island, listener):
        await island.run(call_lost, source)

    assert source.seen == ["joining", "left"]


async def test_no_listener_call_is_made_before_subscribe_was_entered(
    source: AsyncioSource, island: Island, listener: Listener
) -> None:
    async def call_early() -> None:
        tasks.append(asyncio.ensure_future(call_lost(source)))
        await asyncio.sleep(0)

    class Early(AsyncioSource):
        @asynccontextmanager
        async def subscribe(self, listener: AssignmentListener) -> AsyncIterator[LogSubscription]:
            self.listener = listener
            await call_early()
            yield cast("LogSubscription", self)
            await asyncio.gather(*tasks)

    tasks: list[asyncio.Task[None]] = []
    source = Early()
    for _ in range(50):
        async with subscribed(source, island, listener):
            assert not listener.seen

        assert listener.seen == ["lost"], "it was made while the source was left"
        listener.seen.clear()
        tasks.clear()


async def test_missing_topics_are_those_of_the_last_fetch(
    source: AsyncioSource, island: Island, listener: Listener
) -> None:
    source.fetching, source.missing_topics = nothing, {"t": "does not exist"}
    async with subscribed(source, island, listener) as subscription:
        assert not subscription.missing_topics
        await fetch(subscription)
        assert subscription.missing_topics == {"t": "does not exist"}


async def test_what_a_cancelled_fetch_has_brought_comes_with_the_next(
    source: AsyncioSource, island: Island, listener: Listener
) -> None:
    begun = Reply[None]()

    async def bring_although_cancelled() -> None:
        begun.set(None)
        with suppress(asyncio.CancelledError):
            await source.wait()

    source.fetching = bring_although_cancelled
    async with subscribed(source, island, listener) as subscription:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fetch, subscription, OLD)
            await begun.wait()
            tasks.cancel_scope.cancel()

        source.fetching = nothing
        assert [piece.assignment for piece in await fetch(subscription, NEW)] == [NEW], "it is not wanted now"
        assert [piece.assignment for piece in await fetch(subscription, OLD, NEW)] == [OLD]
        assert [piece.assignment for piece in await fetch(subscription, OLD, NEW)] == [OLD, NEW]
