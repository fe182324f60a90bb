"""A source that lives on the island, as the runtime uses it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from typing import Any, TypeVar, cast

import anyio

from rustmq_sdk._asyncio_island.island import Island
from rustmq_sdk._asyncio_island.order import Order
from rustmq_sdk._asyncio_island.subscription import LogAcross, QueueAcross
from rustmq_sdk._asyncio_island.user_loop import UserLoop
from rustmq_sdk._task_groups import raised_as_itself
from rustmq_sdk._threads import Mailbox
from rustmq_sdk.errors import IslandClosed, PermanentDriverError, StrayCancellation
from rustmq_sdk.slots import (
    AnySubscription,
    AssignmentListener,
    Capabilities,
    LogSubscription,
    QueueSubscription,
    Source,
)
from rustmq_sdk.values import Assignment, TopicPartition

T = TypeVar("T")


def across(source: Source, island: Island) -> Source:
    """The source as it is used from the loop that has entered the island: itself, if it lives on that very loop.

    From elsewhere every call crosses once: a fetch with what it brings, which is built into messages on the user's
    loop. ``wake()`` and ``seek()`` cross without being waited for and are done in their order, before all that is
    called later. Listener calls come back one by one, and no fetch result crosses one. Errors cross as they are.

    Args:
        source: written for asyncio, and never used but through this.
        island: entered.
    """
    return SourceAcross(source, island) if island.is_elsewhere else source


class SourceAcross:
    """Fills :class:`~rustmq_sdk.slots.Source`."""

    def __init__(self, source: Source, island: Island) -> None:
        self._source = source
        self._island = island

    @property
    def capabilities(self) -> Capabilities:
        return self._source.capabilities

    def subscribe(self, listener: AssignmentListener) -> AbstractAsyncContextManager[AnySubscription]:
        return self._subscribe(listener)

    @asynccontextmanager
    async def _subscribe(self, listener: AssignmentListener) -> AsyncIterator[AnySubscription]:
        there = _SubscriptionThere(self._source, self._island, listener)
        with raised_as_itself() as body:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(there.guarded, there.user_loop.serve, tasks.cancel_scope, name="rustmq_sdk listener")
                tasks.start_soon(there.guarded, there.run, tasks.cancel_scope, name="rustmq_sdk island")
                with body:
                    yield await there.begun()

                await there.end()

            if there.failure is not None:
                raise there.failure


class _SubscriptionThere:
    """One subscription's time on the island: one task there enters it, keeps it and leaves it, as task groups want."""

    def __init__(self, source: Source, island: Island, listener: AssignmentListener) -> None:
        self.failure: BaseException | None = None
        self.user_loop = UserLoop(island.patience)
        self._source = source
        self._island = island
        self._order = Order()
        self._listener = _ListenerThere(self._tell, listener)
        self._mailbox = Mailbox.current()
        self._subscription: AnySubscription | None = None
        self._across: LogAcross | QueueAcross
        self._entered = anyio.Event()
        self._leave = asyncio.Event()
        self._left = anyio.Event()

    async def guarded(self, task: Callable[[], Awaitable[None]], scope: anyio.CancelScope) -> None:
        """One of the two tasks here. Where it fails, the user's block is cancelled and the error raised after it."""
        try:
            await task()
        except anyio.get_cancelled_exc_class() as error:
            if anyio.current_effective_deadline() == -math.inf:
                raise

            # Not by a scope: somebody cancels tasks of the loop. The task group would end the user's block in silence.
            self.failure = self.failure or _ended_by(error)
        except BaseException as error:
            self.failure = self.failure or error

        if self.failure is not None:
            scope.cancel()

    async def run(self) -> None:
        """Waits for the task over there, until it has left."""
        try:
            await self._island.run(self._kept)
        except StrayCancellation as error:
            raise _ended_by(error) from error
        finally:
            self._entered.set()
            self._left.set()

    async def begun(self) -> AnySubscription:
        """The subscription, as soon as it was entered over there; raises what kept it from that."""
        await self._entered.wait()
        if self._subscription is None:
            raise self.failure or IslandClosed("subscribe was given up")

        island, order, capabilities = self._island, self._order, self._source.capabilities
        if capabilities.kind == "log":
            self._across = LogAcross(cast("LogSubscription", self._subscription), island, order, capabilities)
        else:
            self._across = QueueAcross(cast("QueueSubscription", self._subscription), island, order, capabilities)

        order.entered()
        return self._across

    async def end(self) -> None:
        """Leaves, while listener calls are still answered, and then not any more."""
        with suppress(IslandClosed):  # then it has been left already
            self._island.post(self._leave.set)

        await self._left.wait()
        self.user_loop.close()

    async def _tell(self, call: Callable[[], Awaitable[T]]) -> T:
        return await self.user_loop.call(self._told, call)

    async def _told(self, call: Callable[[], Awaitable[T]]) -> T:
        await self._order.reached()
        # The source has ended its fetch for what it tells now, and another one may be out since that wants what it
        # wanted before.
        self._across.interrupt()
        return await call()

    async def _kept(self) -> None:
        async with self._source.subscribe(self._listener) as self._subscription:
            self._mailbox.post(self._entered.set)
            await self._leave.wait()


class _ListenerThere:
    """Fills :class:`~rustmq_sdk.slots.AssignmentListener` on the island, by the user's."""

    def __init__(
        self, tell: Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]], listener: AssignmentListener
    ) -> None:
        self._tell = tell
        self._listener = listener

    async def assigned(
        self, partitions: Collection[TopicPartition], generation: int | None, *, reason: str = "assigned"
    ) -> Mapping[Assignment, int | None]:
        call = partial(self._listener.assigned, partitions, generation, reason=reason)
        return cast("Mapping[Assignment, int | None]", await self._tell(call))

    async def revoking(self, assignments: Collection[Assignment], budget: float) -> None:
        await self._tell(partial(self._listener.revoking, assignments, budget))

    async def lost(self, assignments: Collection[Assignment], *, reason: str = "lost") -> None:
        await self._tell(partial(self._listener.lost, assignments, reason=reason))


def _ended_by(error: BaseException) -> PermanentDriverError:
    ended = PermanentDriverError(f"was cancelled by somebody else ({error!r})", slot="source", operation="subscribe")
    ended.__cause__ = error
    return ended
