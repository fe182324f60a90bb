"""The slots of a :class:`~rustmq_sdk.testing.faulty.FaultyDriver`: each call by way of it, and otherwise as it was."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from rustmq_sdk.errors import OutcomeUnknown
from rustmq_sdk.slots import (
    Ack,
    Admin,
    AnySubscription,
    AssignmentListener,
    Capabilities,
    DeadLetterQueue,
    Fetched,
    LogSubscription,
    Nack,
    QueueSubscription,
    Receipt,
    SettleOutcome,
    Sink,
    Source,
    StateStore,
    Term,
)
from rustmq_sdk.values import (
    Assignment,
    Checkpoint,
    CommitOutcome,
    DeadLetter,
    OutgoingMessage,
    ProducerSequence,
    SentMessage,
    TopicPartition,
    Version,
    Versioned,
)

if TYPE_CHECKING:
    from rustmq_sdk.testing.faulty import FaultyDriver

SubscriptionT = TypeVar("SubscriptionT", bound=AnySubscription)


class FaultySource:
    """Fills :class:`~rustmq_sdk.slots.Source`."""

    def __init__(self, faulty: FaultyDriver, source: Source, group: str | None) -> None:
        self._faulty = faulty
        self._source = source
        self._group = group

    @property
    def capabilities(self) -> Capabilities:
        return self._source.capabilities

    def subscribe(self, listener: AssignmentListener) -> AbstractAsyncContextManager[AnySubscription]:
        return self._subscribe(listener)

    @asynccontextmanager
    async def _subscribe(self, listener: AssignmentListener) -> AsyncIterator[AnySubscription]:
        async with (
            self._source.subscribe(listener) as subscription,
            self._faulty.reading(subscription, self._group),
        ):
            if self.capabilities.kind == "log":
                yield FaultyLogSubscription(self._faulty, cast("LogSubscription", subscription))
            else:
                yield FaultyQueueSubscription(self._faulty, cast("QueueSubscription", subscription))


class _FaultySubscription(Generic[SubscriptionT]):
    """What both kinds share."""

    def __init__(self, faulty: FaultyDriver, subscription: SubscriptionT) -> None:
        self._faulty = faulty
        self._call = faulty.call
        self._subscription = subscription

    async def fetch(
        self, wanted: Collection[Assignment], *, max_messages: int, max_bytes: int, max_wait: float
    ) -> Sequence[Fetched]:
        async def fetch() -> Sequence[Fetched]:
            pieces = await self._subscription.fetch(
                wanted, max_messages=max_messages, max_bytes=max_bytes, max_wait=max_wait
            )
            if not pieces:  # what it has in its hands already must not be lost
                self._faulty.raise_if_down("source.fetch")

            return pieces

        return await self._call("source.fetch", fetch)

    def wake(self) -> None:
        self._subscription.wake()

    @property
    def missing_topics(self) -> Mapping[str, str]:
        return self._subscription.missing_topics


class FaultyLogSubscription(_FaultySubscription[LogSubscription]):
    """Fills :class:`~rustmq_sdk.slots.LogSubscription`."""

    async def commit(self, checkpoints: Mapping[Assignment, Checkpoint]) -> Mapping[Assignment, CommitOutcome]:
        return await self._call("source.commit", partial(self._subscription.commit, checkpoints))

    async def committed(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, Checkpoint | None]:
        return await self._call("source.committed", partial(self._subscription.committed, partitions))

    async def start_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        return await self._call("source.start_offsets", partial(self._subscription.start_offsets, partitions))

    async def end_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        return await self._call("source.end_offsets", partial(self._subscription.end_offsets, partitions))

    async def offsets_at(
        self, partitions: Collection[TopicPartition], timestamp_ms: int
    ) -> Mapping[TopicPartition, int]:
        return await self._call("source.offsets_at", partial(self._subscription.offsets_at, partitions, timestamp_ms))

    def seek(self, old: Assignment, new: Assignment, offset: int) -> None:
        self._subscription.seek(old, new, offset)

    async def read(self, assignment: Assignment, offsets: Sequence[int]) -> Fetched:
        return await self._call("source.read", partial(self._subscription.read, assignment, offsets))


class FaultyQueueSubscription(_FaultySubscription[QueueSubscription]):
    """Fills :class:`~rustmq_sdk.slots.QueueSubscription`."""

    async def settle(self, settlements: Sequence[Ack | Nack | Term]) -> Sequence[SettleOutcome]:
        return await self._call("source.settle", partial(self._subscription.settle, settlements))

    async def extend(self, receipts: Sequence[Receipt]) -> Sequence[Receipt]:
        return await self._call("source.extend", partial(self._subscription.extend, receipts))


class FaultySink:
    """Fills :class:`~rustmq_sdk.slots.Sink`."""

    def __init__(self, faulty: FaultyDriver, sink: Sink) -> None:
        self._faulty = faulty
        self._sink = sink

    async def partitions(self, topic: str) -> int:
        return await self._faulty.call("sink.partitions", partial(self._sink.partitions, topic))

    async def append(
        self,
        topic: str,
        partition: int,
        messages: Sequence[OutgoingMessage],
        *,
        sequence: ProducerSequence | None,
    ) -> Sequence[SentMessage]:
        append = partial(self._sink.append, topic, partition, messages, sequence=sequence)
        checked = sequence is not None and self._faulty.capabilities.idempotent_append
        unknown = (
            None if checked else OutcomeUnknown(f"append to {topic}: the answer was lost. Look before repeating it")
        )
        return await self._faulty.call("sink.append", append, lost_reply=unknown)


class FaultyStateStore:
    """Fills :class:`~rustmq_sdk.slots.StateStore`."""

    def __init__(self, faulty: FaultyDriver, store: StateStore) -> None:
        self._call = faulty.call
        self._store = store

    async def get(self, key: str) -> Versioned | None:
        return await self._call("state.get", partial(self._store.get, key))

    async def put(self, key: str, value: bytes, *, if_version: Version | None) -> Version | None:
        return await self._call("state.put", partial(self._store.put, key, value, if_version=if_version))


class FaultyDeadLetters:
    """Fills :class:`~rustmq_sdk.slots.DeadLetterQueue`."""

    def __init__(self, faulty: FaultyDriver, letters: DeadLetterQueue) -> None:
        self._call = faulty.call
        self._letters = letters

    async def put(self, letters: Sequence[DeadLetter]) -> None:
        await self._call("dead_letters.put", partial(self._letters.put, letters))


class FaultyAdmin:
    """Fills :class:`~rustmq_sdk.slots.Admin`."""

    def __init__(self, faulty: FaultyDriver, admin: Admin) -> None:
        self._call = faulty.call
        self._admin = admin

    async def create_topic(self, name: str, partitions: int, settings: Mapping[str, Any]) -> None:
        await self._call("admin.create_topic", partial(self._admin.create_topic, name, partitions, settings))

    async def delete_topic(self, name: str) -> None:
        await self._call("admin.delete_topic", partial(self._admin.delete_topic, name))

    async def topics(self) -> Mapping[str, int]:
        return await self._call("admin.topics", self._admin.topics)
