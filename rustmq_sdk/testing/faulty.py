"""A driver around a driver that lets calls go wrong as a plan says."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio

from rustmq_sdk.drivers.memory import MemoryDriver
from rustmq_sdk.errors import ConfigurationError, TransientDriverError
from rustmq_sdk.slots import (
    Admin,
    AnySubscription,
    Capabilities,
    DeadLetterQueue,
    Driver,
    Sink,
    Source,
    SourceRequest,
    StateStore,
)
from rustmq_sdk.testing.faults import Fault, FaultPlan
from rustmq_sdk.testing.faulty_slots import FaultyAdmin, FaultyDeadLetters, FaultySink, FaultySource, FaultyStateStore

T = TypeVar("T")
GroupFate = Callable[[str], object]


class FaultyDriver:
    """Does what another driver does, except where a plan lets calls go wrong.

    Args:
        driver: the driver that does the work.
        plan: says what goes wrong, and keeps a record of it.
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
        return FaultySource(self, self._driver.source(request), request.group)

    def sink(self) -> Sink:
        return FaultySink(self, self._driver.sink())

    def admin(self) -> Admin:
        return FaultyAdmin(self, self._driver.admin())

    def state_store(self, name: str) -> StateStore:
        return FaultyStateStore(self, self._driver.state_store(name))

    def dead_letters(self, topic: str) -> DeadLetterQueue:
        return FaultyDeadLetters(self, self._driver.dead_letters(topic))

    async def call(
        self, operation: str, action: Callable[[], Awaitable[T]], *, lost_reply: Exception | None = None
    ) -> T:
        """Awaits ``action``, or does what the plan says instead.

        Args:
            operation: one of :data:`~rustmq_sdk.testing.faults.OPERATIONS`.
            action: the call.
            lost_reply: raised after the effect where the reply is lost; a ``TransientDriverError`` by default.
        """
        await self._unless_crashed()
        self.raise_if_down(operation)
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
        """While its block runs, faults find the subscription's group, and can end its waiting fetch."""
        self._fetching.append(subscription)
        if group is not None:
            self._groups[group] = self._groups.get(group, 0) + 1

        try:
            yield
        finally:
            self._fetching.remove(subscription)
            if group is not None:
                self._groups[group] -= 1

    def raise_if_down(self, operation: str) -> None:
        """Raises a ``TransientDriverError`` while a disconnect goes on."""
        if anyio.current_time() < self._down_until:
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


async def _pass(seconds: float) -> None:
    await (anyio.sleep_forever() if math.isinf(seconds) else anyio.sleep(seconds))


def failure(operation: str, problem: str) -> TransientDriverError:
    """Makes the error of a call that may be repeated."""
    slot, _, name = operation.partition(".")
    return TransientDriverError(f"{problem} (injected)", slot=slot, operation=name)
