"""A source that knows asyncio alone, the listener it calls, and an island where it may live."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import cast

import pytest

from rustmq_sdk._asyncio_island import Island, across
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
        self.missing_topics: Mapping[str, str] = {}

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


async def call_lost(source: AsyncioSource) -> None:
    await source.listener.lost([OLD])
