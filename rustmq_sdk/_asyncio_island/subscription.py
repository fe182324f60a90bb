"""A subscription that lives on the island, as the runtime uses it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Generic, TypeVar

from rustmq_sdk._asyncio_island.island import Island
from rustmq_sdk._asyncio_island.order import Flight, Order
from rustmq_sdk.errors import IslandClosed, PermanentDriverError, StrayCancellation, Unsupported
from rustmq_sdk.slots import (
    Ack,
    AnySubscription,
    Capabilities,
    Fetched,
    LogSubscription,
    Nack,
    QueueSubscription,
    Receipt,
    SettleOutcome,
    Term,
)
from rustmq_sdk.values import Assignment, Checkpoint, CommitOutcome, TopicPartition

T = TypeVar("T")
SubscriptionT = TypeVar("SubscriptionT", bound=AnySubscription)


class _SubscriptionAcross(Generic[SubscriptionT]):
    """What both kinds share. Each call crosses once, there and back; what was fetched is not touched on the way."""

    def __init__(self, subscription: SubscriptionT, island: Island, order: Order, capabilities: Capabilities) -> None:
        self._there = subscription
        self._island = island
        self._order = order
        self._capabilities = capabilities
        self._missing: Mapping[str, str] = {}
        self._kept: list[Fetched] = []
        self._is_fetching = False
        self._failure: PermanentDriverError | None = None

    async def fetch(
        self, wanted: Collection[Assignment], *, max_messages: int, max_bytes: int, max_wait: float
    ) -> Sequence[Fetched]:
        # What comes while its fetch is being cancelled counts as read over there, and would be skipped for ever. A
        # piece of an assignment that is over stays here: it is never wanted again.
        kept = [piece for piece in self._kept if piece.assignment in wanted]
        if kept:
            self._kept = [piece for piece in self._kept if piece not in kept]
            return kept

        fetch = partial(self._there.fetch, wanted, max_messages=max_messages, max_bytes=max_bytes, max_wait=max_wait)
        with self._order.fetching() as flight:
            try:
                self._missing = await self._call("fetch", self._fetch, fetch, flight)
            except BaseException:
                self._kept += flight.pieces
                raise

            return flight.pieces

    def wake(self) -> None:
        with suppress(IslandClosed):  # no fetch waits there any more
            self._post("wake", self._there.wake)

    def interrupt(self) -> None:
        """As :meth:`wake`, but only for a fetch that waits."""
        with suppress(IslandClosed):
            self._post("wake", self._interrupt)

    @property
    def missing_topics(self) -> Mapping[str, str]:
        """As the last fetch has left it: the source's own may change under the eyes of another thread."""
        return self._missing

    async def _call(self, operation: str, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        try:
            return await self._island.run(function, *args)
        except StrayCancellation as error:
            raise PermanentDriverError(str(error), slot="source", operation=operation) from error

    def _post(self, operation: str, call: Callable[[], None]) -> None:
        self._island.post(partial(self._made, operation, call))

    # On the island

    async def _fetch(self, fetch: Callable[[], Awaitable[Sequence[Fetched]]], flight: Flight) -> Mapping[str, str]:
        if self._failure is not None:
            raise self._failure

        self._is_fetching = True
        try:
            flight.land(await fetch())
        finally:
            self._is_fetching = False

        return dict(self._there.missing_topics)

    def _interrupt(self) -> None:
        if self._is_fetching:
            self._there.wake()

    def _made(self, operation: str, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:
            # Whoever called has gone on long since, believing that it was done. Every fetch raises it from now on.
            failure = PermanentDriverError(f"{error!r}, and was not done", slot="source", operation=operation)
            failure.__cause__ = error
            self._failure = self._failure or failure
            with suppress(Exception):  # then it returns when its time is over
                self._there.wake()


class LogAcross(_SubscriptionAcross[LogSubscription]):
    """Fills :class:`~rustmq_sdk.slots.LogSubscription`."""

    async def commit(self, checkpoints: Mapping[Assignment, Checkpoint]) -> Mapping[Assignment, CommitOutcome]:
        return await self._call("commit", self._there.commit, checkpoints)

    async def committed(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, Checkpoint | None]:
        return await self._call("committed", self._there.committed, partitions)

    async def start_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        return await self._call("start_offsets", self._there.start_offsets, partitions)

    async def end_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        return await self._call("end_offsets", self._there.end_offsets, partitions)

    async def offsets_at(
        self, partitions: Collection[TopicPartition], timestamp_ms: int
    ) -> Mapping[TopicPartition, int]:
        return await self._call("offsets_at", self._there.offsets_at, partitions, timestamp_ms)

    def seek(self, old: Assignment, new: Assignment, offset: int) -> None:
        """Is done over there before any call that is made later; a result already on its way carries ``old``."""
        if not self._capabilities.seek:
            raise Unsupported("seek: this source cannot move a position. Its capabilities say so")

        self._post("seek", partial(self._there.seek, old, new, offset))

    async def read(self, assignment: Assignment, offsets: Sequence[int]) -> Fetched:
        return await self._call("read", self._there.read, assignment, offsets)


class QueueAcross(_SubscriptionAcross[QueueSubscription]):
    """Fills :class:`~rustmq_sdk.slots.QueueSubscription`."""

    async def settle(self, settlements: Sequence[Ack | Nack | Term]) -> Sequence[SettleOutcome]:
        return await self._call("settle", self._there.settle, settlements)

    async def extend(self, receipts: Sequence[Receipt]) -> Sequence[Receipt]:
        return await self._call("extend", self._there.extend, receipts)
