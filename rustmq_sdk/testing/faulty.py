"""A driver around a driver, that lets happen what a plan says."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, TypeVar, cast

import anyio

from rustmq_sdk.drivers.memory import MemoryDriver
from rustmq_sdk.errors import ConfigurationError, OutcomeUnknown, TransientDriverError
from rustmq_sdk.slots import (
    Ack,
    Admin,
    AnySubscription,
    AssignmentListener,
    Capabilities,
    DeadLetterQueue,
    Driver,
    Fetched,
    LogSubscription,
    Nack,
    QueueSubscription,
    Receipt,
    SettleOutcome,
    Sink,
    Source,
    SourceRequest,
    StateStore,
    Term,
)
from rustmq_sdk.testing.faults import Fault, FaultPlan
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

T = TypeVar("T")
GroupFate = Callable[[str], object]


class FaultyDriver:
    """Fills :class:`~rustmq_sdk.slots.Driver` by another driver, with the faults of a plan.

    Args:
        driver: the one that does the work.
        plan: what goes wrong; keeps the record.
        rebalance, expire: called with a group's name by the faults of these names. The in-memory driver has its own.

    Attributes:
        crashed: is set when a ``crash`` happened.
    """

    def __init__(
        self,
        driver: Driver,
        plan: FaultPlan,
        *,
        rebalance: GroupFate | None = None,
        expire: GroupFate | None = None,
    ) -> None:
        if isinstance(driver, MemoryDriver):
            rebalance, expire = rebalance or driver.broker.rebalance, expire or driver.broker.expire

        self.plan = plan
        self.crashed = anyio.Event()
        self._driver = driver
        self._fates = {"rebalance": rebalance, "expire": expire}
        self._groups: dict[str, int] = {}
        self._fetching: list[AnySubscription] = []
        self._down_until = -math.inf

    @property
    def capabilities(self) -> Capabilities:
        return self._driver.capabilities

    async def __aenter__(self) -> FaultyDriver:
        await self.call("driver.open", self._driver.__aenter__)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._driver.__aexit__(*exc_info)

    def source(self, request: SourceRequest) -> Source:
        return _FaultySource(self, self._driver.source(request), request.group)

    def sink(self) -> Sink:
        return _FaultySink(self, self._driver.sink())

    def admin(self) -> Admin:
        return _FaultyAdmin(self, self._driver.admin())

    def state_store(self, name: str) -> StateStore:
        return _FaultyStateStore(self, self._driver.state_store(name))

    def dead_letters(self, topic: str) -> DeadLetterQueue:
        return _FaultyDeadLetters(self, self._driver.dead_letters(topic))

    async def call(
        self, operation: str, action: Callable[[], Awaitable[T]], *, lost_reply: Exception | None = None
    ) -> T:
        """Does ``action``, or what the plan says instead.

        Args:
            operation: one of :data:`~rustmq_sdk.testing.faults.OPERATIONS`.
            action: the call.
            lost_reply: raised after the effect where the reply is lost; a ``TransientDriverError`` by default.
        """
        await self._reach(operation)
        fault = self.plan.draw(operation)
        if fault is not None:
            await self._before(fault)
            await self._unless_crashed()

        result = await action()
        if fault is not None and fault.kind == "crash_after":
            self.crashed.set()

        await self._unless_crashed()
        if fault is not None and fault.kind == "reply_late" and operation != "source.fetch":
            await _pass(fault.seconds)

        if fault is not None and fault.kind == "reply_lost":
            raise lost_reply or failure(operation, "the connection was lost before the answer came")

        return result

    @asynccontextmanager
    async def reading(self, subscription: AnySubscription, group: str | None) -> AsyncIterator[None]:
        """While a subscription lives, faults find its group and end its waiting fetch."""
        self._fetching.append(subscription)
        if group is not None:
            self._groups[group] = self._groups.get(group, 0) + 1

        try:
            yield
        finally:
            self._fetching.remove(subscription)
            if group is not None:
                self._groups[group] -= 1

    def is_down(self) -> bool:
        """Whether a disconnect is going on."""
        return anyio.current_time() < self._down_until

    async def _reach(self, operation: str) -> None:
        await self._unless_crashed()
        if self.is_down():
            raise failure(operation, "no connection")

    async def _unless_crashed(self) -> None:
        if self.crashed.is_set():
            await anyio.sleep_forever()

    async def _before(self, fault: Fault) -> None:
        position_is_ours = fault.operation == "source.fetch" and self.capabilities.kind == "log"
        if fault.kind == "refused" or (fault.kind == "reply_lost" and position_is_ours):
            raise failure(fault.operation, "refused")

        if fault.kind == "hang" or (fault.kind == "reply_late" and fault.operation == "source.fetch"):
            await _pass(fault.seconds)

        if fault.kind == "disconnect":
            self._down_until = anyio.current_time() + fault.seconds
            for subscription in self._fetching:
                subscription.wake()

            raise failure(fault.operation, "the connection was lost")

        if fault.kind == "crash":
            self.crashed.set()

        if fault.kind in self._fates and self.capabilities.kind == "log":
            self._move_partitions(fault)

    def _move_partitions(self, fault: Fault) -> None:
        fate = self._fates[fault.kind]
        if fate is None:
            raise ConfigurationError(
                "the driver under test has no such hook",
                field=fault.kind,
                value=None,
                fix=f"FaultyDriver(driver, plan, {fault.kind}=…)",
            )

        for group in [group for group, readers in self._groups.items() if readers]:
            fate(group)


class _FaultySource:
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
                yield _FaultyLogSubscription(self._faulty, cast("LogSubscription", subscription))
            else:
                yield _FaultyQueueSubscription(self._faulty, cast("QueueSubscription", subscription))


class _FaultyLogSubscription:
    def __init__(self, faulty: FaultyDriver, subscription: LogSubscription) -> None:
        self._call = faulty.call
        self._faulty = faulty
        self._log = subscription
        self.wake = subscription.wake
        self.seek = subscription.seek

    @property
    def missing_topics(self) -> Mapping[str, str]:
        return self._log.missing_topics

    async def fetch(
        self, wanted: Collection[Assignment], *, max_messages: int, max_bytes: int, max_wait: float
    ) -> Sequence[Fetched]:
        return await _fetch(
            self._faulty, self._log, wanted, max_messages=max_messages, max_bytes=max_bytes, max_wait=max_wait
        )

    async def commit(self, checkpoints: Mapping[Assignment, Checkpoint]) -> Mapping[Assignment, CommitOutcome]:
        return await self._call("source.commit", partial(self._log.commit, checkpoints))

    async def committed(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, Checkpoint | None]:
        return await self._call("source.committed", partial(self._log.committed, partitions))

    async def start_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        return await self._call("source.start_offsets", partial(self._log.start_offsets, partitions))

    async def end_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        return await self._call("source.end_offsets", partial(self._log.end_offsets, partitions))

    async def offsets_at(
        self, partitions: Collection[TopicPartition], timestamp_ms: int
    ) -> Mapping[TopicPartition, int]:
        return await self._call("source.offsets_at", partial(self._log.offsets_at, partitions, timestamp_ms))

    async def read(self, assignment: Assignment, offsets: Sequence[int]) -> Fetched:
        return await self._call("source.read", partial(self._log.read, assignment, offsets))


class _FaultyQueueSubscription:
    def __init__(self, faulty: FaultyDriver, subscription: QueueSubscription) -> None:
        self._call = faulty.call
        self._faulty = faulty
        self._queue = subscription
        self.wake = subscription.wake

    @property
    def missing_topics(self) -> Mapping[str, str]:
        return self._queue.missing_topics

    async def fetch(
        self, wanted: Collection[Assignment], *, max_messages: int, max_bytes: int, max_wait: float
    ) -> Sequence[Fetched]:
        return await _fetch(
            self._faulty, self._queue, wanted, max_messages=max_messages, max_bytes=max_bytes, max_wait=max_wait
        )

    async def settle(self, settlements: Sequence[Ack | Nack | Term]) -> Sequence[SettleOutcome]:
        return await self._call("source.settle", partial(self._queue.settle, settlements))

    async def extend(self, receipts: Sequence[Receipt]) -> Sequence[Receipt]:
        return await self._call("source.extend", partial(self._queue.extend, receipts))


class _FaultySink:
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


class _FaultyStateStore:
    def __init__(self, faulty: FaultyDriver, store: StateStore) -> None:
        self._call = faulty.call
        self._store = store

    async def get(self, key: str) -> Versioned | None:
        return await self._call("state.get", partial(self._store.get, key))

    async def put(self, key: str, value: bytes, *, if_version: Version | None) -> Version | None:
        return await self._call("state.put", partial(self._store.put, key, value, if_version=if_version))


class _FaultyDeadLetters:
    def __init__(self, faulty: FaultyDriver, letters: DeadLetterQueue) -> None:
        self._call = faulty.call
        self._letters = letters

    async def put(self, letters: Sequence[DeadLetter]) -> None:
        await self._call("dead_letters.put", partial(self._letters.put, letters))


class _FaultyAdmin:
    def __init__(self, faulty: FaultyDriver, admin: Admin) -> None:
        self._call = faulty.call
        self._admin = admin

    async def create_topic(self, name: str, partitions: int, settings: Mapping[str, Any]) -> None:
        await self._call("admin.create_topic", partial(self._admin.create_topic, name, partitions, settings))

    async def delete_topic(self, name: str) -> None:
        await self._call("admin.delete_topic", partial(self._admin.delete_topic, name))

    async def topics(self) -> Mapping[str, int]:
        return await self._call("admin.topics", self._admin.topics)


async def _pass(seconds: float) -> None:
    await (anyio.sleep_forever() if math.isinf(seconds) else anyio.sleep(seconds))


def failure(operation: str, problem: str) -> TransientDriverError:
    """The error of a call that may be repeated."""
    slot, _, name = operation.partition(".")
    return TransientDriverError(f"{problem} (injected)", slot=slot, operation=name)


async def _fetch(
    faulty: FaultyDriver,
    subscription: AnySubscription,
    wanted: Collection[Assignment],
    *,
    max_messages: int,
    max_bytes: int,
    max_wait: float,
) -> Sequence[Fetched]:
    """A fetch that ends when the connection does, and fails unless it has something in its hands already."""
    limits = {"max_messages": max_messages, "max_bytes": max_bytes, "max_wait": max_wait}

    async def fetch() -> Sequence[Fetched]:
        pieces = await subscription.fetch(wanted, **limits)  # type: ignore[arg-type]
        if not pieces and faulty.is_down():
            raise failure("source.fetch", "the connection was lost")

        return pieces

    return await faulty.call("source.fetch", fetch)
