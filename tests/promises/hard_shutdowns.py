"""What makes shutting down hard, sources and a handler, and how to see that it came to its end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import anyio

from rustmq_sdk import Message, PermanentDriverError
from rustmq_sdk.drivers.memory import MemoryDriver
from rustmq_sdk.slots import AssignmentListener, Capabilities, SourceRequest
from rustmq_sdk.values import Assignment
from tests.promises.stage import GROUP, Stage


def group_is_empty(stage: Stage) -> bool:
    """Nobody is a member any more."""
    return not stage.broker.group(GROUP).members


async def work_for_ever(message: Message) -> None:
    await anyio.sleep_forever()


class Sticky:
    """A source whose connection never finishes closing."""

    def __init__(self, driver: MemoryDriver) -> None:
        self._source = driver.source(SourceRequest(topics=["t"], group=GROUP, lease=30, revoke_budget=5))
        self.asked_to_leave = False

    @property
    def capabilities(self) -> Capabilities:
        return self._source.capabilities

    @asynccontextmanager
    async def subscribe(self, listener: AssignmentListener) -> AsyncIterator[Any]:
        async with self._source.subscribe(listener) as subscription:
            yield subscription
            self.asked_to_leave = True
            await anyio.sleep_forever()


class Polite(Sticky):
    """A source whose client finishes a rebalance that is going on before it leaves."""

    left = False

    @asynccontextmanager
    async def subscribe(self, listener: AssignmentListener) -> AsyncIterator[Any]:
        finished = anyio.Event()
        revoking = listener.revoking

        async def revoke(assignments: Collection[Assignment], budget: float) -> None:
            await revoking(assignments, 300)
            finished.set()

        told = SimpleNamespace(revoking=revoke, lost=listener.lost, assigned=listener.assigned)
        async with self._source.subscribe(told) as subscription:
            yield subscription
            await finished.wait()
            self.left = True


class Unreachable(Sticky):
    """A source nobody answers for."""

    @asynccontextmanager
    async def subscribe(self, listener: AssignmentListener) -> AsyncIterator[Any]:
        async with self._source.subscribe(listener) as subscription:
            await self._connect()
            yield subscription

    async def _connect(self) -> None:
        raise PermanentDriverError("no such host", slot="source", operation="subscribe")


class Slow(Unreachable):
    """A source that answers after a while."""

    async def _connect(self) -> None:
        await anyio.sleep(5)
