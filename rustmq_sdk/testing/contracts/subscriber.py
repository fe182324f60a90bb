"""A member of a group, as far as a contract needs one: it joins, fetches, and keeps what it got."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Generic, NamedTuple, TypeVar, cast

import anyio

from rustmq_sdk.slots import AnySubscription, Driver, Fetched, LogSubscription, QueueSubscription, SourceRequest
from rustmq_sdk.testing.deliveries import Deliveries
from rustmq_sdk.testing.listener import RecordingListener
from rustmq_sdk.values import Assignment, Headers, TopicPartition

SubscriptionT = TypeVar("SubscriptionT", bound=AnySubscription)

PLENTY = 1 << 30


class Received(NamedTuple):
    """A record as a subscriber got it."""

    tp: TopicPartition
    offset: int | None
    payload: bytes | None
    key: bytes | None
    headers: Headers
    timestamp: int
    attempt: int


class Subscriber(Generic[SubscriptionT]):
    """A subscription, its listener, and what was received so far."""

    def __init__(self, subscription: SubscriptionT, listener: RecordingListener, patience: float) -> None:
        self.subscription = subscription
        self.listener = listener
        self.patience = patience
        self.pieces: list[Fetched] = []
        self.received: list[Received] = []

    @property
    def wanted(self) -> Sequence[Assignment]:
        """All assignments that it has now."""
        return list(self.listener.assignments.values())

    def assignment(self, tp: TopicPartition) -> Assignment:
        """Returns the current assignment of a partition."""
        return self.listener.assignments[tp]

    def payloads(self, tp: TopicPartition | None = None) -> list[bytes | None]:
        """Returns the payloads that were received, of one partition or of all."""
        return [record.payload for record in self.received if tp is None or record.tp == tp]

    async def owns(self, partitions: Collection[TopicPartition]) -> None:
        """Waits until exactly these are assigned."""
        await self.listener.until(lambda: set(self.listener.assignments) == set(partitions), self.patience)

    async def misses(self, topics: Collection[str]) -> None:
        """Waits until exactly these are named as topics that do not exist."""
        with anyio.fail_after(self.patience):
            while set(self.subscription.missing_topics) != set(topics):
                await self.fetch(max_wait=0.05)

        assert all(topic in text for topic, text in self.subscription.missing_topics.items()), "it says of which"

    async def fetch(
        self,
        wanted: Collection[Assignment] | None = None,
        *,
        max_messages: int = 500,
        max_bytes: int = PLENTY,
        max_wait: float = 0.0,
    ) -> Sequence[Fetched]:
        """Makes one fetch. What it brings is checked for contradictions and added to :attr:`received`."""
        wanted = self.wanted if wanted is None else wanted
        pieces = await self.subscription.fetch(
            wanted, max_messages=max_messages, max_bytes=max_bytes, max_wait=max_wait
        )
        for piece in pieces:
            assert piece.assignment in wanted, f"{piece.assignment} was not asked for"
            self.pieces.append(piece)
            self.received += unpack(piece)

        return pieces

    async def collect(self, count: int) -> list[Received]:
        """Fetches until ``count`` records were received in all."""
        await self.fetch_until(lambda: len(self.received) >= count)
        return self.received

    async def fetch_until(self, condition: Callable[[], bool]) -> None:
        """Fetches until the condition holds; ``TimeoutError`` after the suite's patience."""
        with anyio.move_on_after(self.patience):
            while not condition():
                await self.fetch(max_wait=self.patience)

        if not condition():
            raise TimeoutError(
                f"not within {self.patience:g} s; {len(self.received)} records received: {self.received[:20]}"
            )


def unpack(piece: Fetched) -> list[Received]:
    """Returns the records of a piece, built as the runtime builds them, and checked against its other fields."""
    state = Deliveries.of(piece)
    messages = piece.build(piece.records, state, 0)
    assert len(messages) == len(piece.records) == len(piece.offsets), "one message and one offset for each record"
    assert [message._index for message in messages] == list(range(len(messages))), "messages number themselves"
    assert all(message._piece is state for message in messages), "messages carry the piece they were given"
    return [
        Received(
            piece.assignment.tp,
            message.offset,
            message.payload,
            message.key,
            tuple(message.headers),
            message.timestamp,
            state.attempt_at(index),
        )
        for index, message in enumerate(messages)
    ]


@contextmanager
def _lone_errors_as_themselves() -> Iterator[None]:
    """What a test asserts would come wrapped from a driver that has a task group around ``subscribe()``."""
    try:
        yield
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]

        raise error from None


@asynccontextmanager
async def log_member(
    driver: Driver, request: SourceRequest, listener: RecordingListener, patience: float
) -> AsyncIterator[Subscriber[LogSubscription]]:
    """Joins as a reader of a log."""
    with _lone_errors_as_themselves():
        async with driver.source(request).subscribe(listener) as subscription:
            listener.subscription = subscription
            yield Subscriber(cast("LogSubscription", subscription), listener, patience)

    assert not listener.violations, listener.violations


@asynccontextmanager
async def queue_member(
    driver: Driver, request: SourceRequest, listener: RecordingListener, patience: float
) -> AsyncIterator[Subscriber[QueueSubscription]]:
    """Joins as a reader of a queue."""
    with _lone_errors_as_themselves():
        async with driver.source(request).subscribe(listener) as subscription:
            listener.subscription = subscription
            yield Subscriber(cast("QueueSubscription", subscription), listener, patience)

    assert not listener.violations, listener.violations
