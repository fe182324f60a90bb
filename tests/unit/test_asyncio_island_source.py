"""A source on an island: what is done in which order, and what becomes of errors and cancellations.

That it keeps the promises of the slots is shown by ``tests/contract/test_asyncio_island.py``.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import anyio
import pytest

from rustmq_sdk._asyncio_island import Island, IslandClosed, across
from rustmq_sdk._threads import Reply
from rustmq_sdk.errors import PermanentDriverError, UnknownTopic, Unsupported
from rustmq_sdk.slots import AssignmentListener, Capabilities, Fetched, LogSubscription, Source
from rustmq_sdk.values import Assignment, Checkpoint, CommitOutcome, TopicPartition

TP = TopicPartition("t", 0)
OLD, NEW = Assignment(TP, 1), Assignment(TP, 2)


async def nothing() -> None:
    pass


class AsyncioSource:
    """A source that knows asyncio alone and does what a test tells it, and of that keeps a record in ``seen``.

    Attributes:
        joining: awaited while it is entered. leaving: while it is left.
        listener: what the driver calls.
        fetching: awaited by a fetch before it brings a piece; waits for ``wake()`` unless the test says otherwise.
    """

    def __init__(self, *, seek: bool = True) -> None:
        self.capabilities = Capabilities(kind="log", seek=seek)
        self.seen: list[object] = []
        self.joining: Callable[[], Awaitable[object]] = nothing
        self.leaving: Callable[[], Awaitable[object]] = nothing
        self.fetching: Callable[[], Awaitable[object]] = self.wait
        self.seeking: Callable[[], object] = int
        self.listener: AssignmentListener
        self.woken = asyncio.Event()
        self.missing_topics: Collection[str] = ()

    @asynccontextmanager
    async def subscribe(self, listener: AssignmentListener) -> AsyncIterator[LogSubscription]:
        self.seen.append("joining")
        try:
            await self.joining()
            self.listener = listener
            yield cast("LogSubscription", self)
        finally:
            await self.leaving()
            self.seen.append("left")

    async def wait(self) -> None:
        await self.woken.wait()
        self.woken.clear()

    async def fetch(
        self, wanted: Collection[Assignment], *, max_messages: int, max_bytes: int, max_wait: float
    ) -> Sequence[Fetched]:
        self.seen.append("fetch")
        await self.fetching()
        return [piece_of(assignment) for assignment in wanted]

    def wake(self) -> None:
        self.seen.append("wake")
        self.woken.set()

    def seek(self, old: Assignment, new: Assignment, offset: int) -> None:
        self.seen.append(offset)
        self.seeking()

    async def commit(self, checkpoints: Mapping[Assignment, Checkpoint]) -> Mapping[Assignment, CommitOutcome]:
        self.seen.append("commit")
        return dict.fromkeys(checkpoints, CommitOutcome.COMMITTED)


def piece_of(assignment: Assignment) -> Fetched:
    return Fetched(assignment, range(1), [b""], lambda *arguments: [], 1, 0)


class Listener:
    """The runtime's part: keeps a record of its calls, and does what a test tells it."""

    def __init__(self) -> None:
        self.seen: list[object] = []
        self.answering: Callable[[], Awaitable[object]] = nothing

    async def assigned(
        self, partitions: Collection[TopicPartition], generation: int | None, *, reason: str = "assigned"
    ) -> Mapping[Assignment, int | None]:
        self.seen.append("assigned")
        await self.answering()
        return {OLD: 0}

    async def revoking(self, assignments: Collection[Assignment], budget: float) -> None:
        self.seen.append("revoking")
        await self.answering()

    async def lost(self, assignments: Collection[Assignment], *, reason: str = "lost") -> None:
        self.seen.append("lost")


@pytest.fixture
def source() -> AsyncioSource:
    return AsyncioSource()


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
async def island() -> AsyncIterator[Island]:
    async with Island("under test", thread=True, patience=5.0) as island:
        yield island


@asynccontextmanager
async def subscribed(source: AsyncioSource, island: Island, listener: Listener) -> AsyncIterator[LogSubscription]:
    async with across(cast("Source", source), island).subscribe(listener) as subscription:
        yield cast("LogSubscription", subscription)


async def fetch(subscription: LogSubscription, *wanted: Assignment) -> Sequence[Fetched]:
    return await subscription.fetch(wanted, max_messages=10, max_bytes=1000, max_wait=3600)


async def test_on_the_callers_own_loop_a_source_is_used_as_it_is(
    source: AsyncioSource, anyio_backend_name: str
) -> None:
    async with Island("under test") as island:
        used = across(cast("Source", source), island)
        assert (used is cast("Source", source)) == (anyio_backend_name == "asyncio")
        assert used.capabilities is source.capabilities


# Order


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
        with anyio.fail_after(5):
            await island.run(call_lost, source)

    assert source.seen == ["joining", "fetch", "wake", "left"]


async def call_lost(source: AsyncioSource) -> None:
    await source.listener.lost([OLD])


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
    source.fetching, source.missing_topics = nothing, {"t"}
    async with subscribed(source, island, listener) as subscription:
        assert not subscription.missing_topics
        await fetch(subscription)
        assert list(subscription.missing_topics) == ["t"]


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
        with pytest.raises(PermanentDriverError, match=r"source fetch: .*cancelled"):
            await fetch(subscription)

    source.joining = cancel_itself
    with pytest.raises(PermanentDriverError, match=r"source subscribe: .*cancelled"):
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
    with anyio.fail_after(5), pytest.raises(PermanentDriverError, match="cancelled"):
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
    with anyio.fail_after(5), anyio.CancelScope() as scope:
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
        assert released.wait(10)

    async with Island("busy", thread=True, patience=0.2) as island:
        with anyio.fail_after(3), anyio.CancelScope() as scope:
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
        with anyio.fail_after(5), pytest.raises(PermanentDriverError, match="somebody else"):
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
        with anyio.fail_after(5), pytest.raises(IslandClosed, match="was closed"):
            await use(island)

    assert source.seen == ["joining", "left"]
