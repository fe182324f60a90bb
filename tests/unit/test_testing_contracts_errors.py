"""What a contract suite says about a driver that breaks a promise is said plainly."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import anyio
import pytest

from rustmq_sdk.drivers.memory import MemoryDriver
from rustmq_sdk.drivers.memory import open as open_memory
from rustmq_sdk.slots import AnySubscription, AssignmentListener, Capabilities, Fetched, Source, SourceRequest
from rustmq_sdk.testing.contracts import LogSourceContract, QueueSourceContract
from rustmq_sdk.testing.contracts.base import Contract
from rustmq_sdk.values import TopicPartition

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

Subscribe = Callable[[AssignmentListener], AbstractAsyncContextManager[AnySubscription]]


class Subscribing:
    """A source whose ``subscribe()`` is another one."""

    def __init__(self, capabilities: Capabilities, subscribe: Subscribe) -> None:
        self.capabilities = capabilities
        self.subscribe = subscribe


class GroupedDriver(MemoryDriver):
    """One that has a task group around ``subscribe()``, as many have."""

    def source(self, request: SourceRequest) -> Source:
        source = super().source(request)

        @asynccontextmanager
        async def subscribe(listener: AssignmentListener) -> AsyncIterator[AnySubscription]:
            async with anyio.create_task_group() as tasks, source.subscribe(listener) as subscription:
                tasks.start_soon(anyio.sleep_forever)
                yield subscription
                tasks.cancel_scope.cancel()

        return Subscribing(source.capabilities, subscribe)


class PolledSubscription:
    """One that tells the listener from within ``fetch()``."""

    def __init__(self, topic: str, listener: AssignmentListener) -> None:
        self.topic, self.listener = topic, listener

    async def fetch(self, *_: Any, **__: Any) -> Sequence[Fetched]:
        await self.listener.assigned([TopicPartition(self.topic, 0)], None)
        return []


class PolledDriver(MemoryDriver):
    """One that tells the listener from within ``fetch()``."""

    def source(self, request: SourceRequest) -> Source:
        @asynccontextmanager
        async def subscribe(listener: AssignmentListener) -> AsyncIterator[Any]:
            yield PolledSubscription(request.topics[0], listener)

        return Subscribing(super().source(request).capabilities, subscribe)


@pytest.mark.parametrize(("suite", "kind"), [(LogSourceContract(), "log"), (QueueSourceContract(), "queue")])
async def test_what_a_suite_asserts_comes_as_itself_from_a_driver_with_a_task_group(suite: Contract, kind: Any) -> None:
    capabilities = open_memory(f"memory://?kind={kind}").capabilities
    async with GroupedDriver(None, capabilities) as driver:
        await suite.create(driver, "topic")
        join = suite.log_member if kind == "log" else suite.queue_member
        with pytest.raises(AssertionError, match="not what was sent"):
            async with join(driver, "topic", "group"), anyio.create_task_group():
                raise AssertionError("not what was sent")


async def test_several_errors_come_together() -> None:
    suite = LogSourceContract()
    async with GroupedDriver() as driver:
        await suite.create(driver, "topic")
        with pytest.raises(ExceptionGroup) as caught:
            async with suite.log_member(driver, "topic", "group"):
                raise ExceptionGroup("two", [ValueError(), OSError()])

    assert caught.group_contains(OSError)


async def test_a_driver_that_waits_for_a_fetch_with_its_calls_is_told_to_have_a_task() -> None:
    suite = LogSourceContract()
    async with PolledDriver() as driver:
        with pytest.raises(TimeoutError, match=r"called: nothing\. .* from a task of the driver's own, .* fetch"):
            await suite.test_one_member_has_everything(driver, "topic", "group")


async def test_a_driver_whose_calls_come_is_not_told_to_have_a_task() -> None:
    suite = LogSourceContract()
    async with MemoryDriver() as driver:
        await suite.create(driver, "topic")
        with pytest.raises(TimeoutError, match=r"name='assigned'.*\]$"):
            async with suite.log_member(driver, "topic", "group") as member:
                await member.owns([TopicPartition("another", 0)])
