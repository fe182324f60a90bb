"""A group that nobody coordinates is told of, and a rebalance is not taken for one. asyncio only."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("aiokafka")

from aiokafka.consumer.group_coordinator import GroupCoordinator

from rustmq_sdk.drivers.kafka.liveness import CoordinatorWatch
from rustmq_sdk.errors import TransientDriverError

pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])

SESSION = 30.0


class Coordinator(GroupCoordinator):  # type: ignore[misc]  # aiokafka has no types for us to see
    """As much of aiokafka's as the watch asks.

    Attributes:
        answers: what the next heartbeat gets.
    """

    def __init__(self) -> None:
        self.coordinator_id: int | None = 1
        self._heartbeat_task: Any = asyncio.Future()
        self.answers = True

    async def _do_heartbeat(self) -> bool:
        return self.answers


class Group:
    """A watch, at a time that is told."""

    def __init__(self) -> None:
        self.now = 0.0
        self.coordinator = Coordinator()
        consumer: Any = SimpleNamespace(_coordinator=self.coordinator, _group_id="billing")
        self.watch = CoordinatorWatch(consumer, patience=SESSION, clock=lambda: self.now)

    def passes(self, seconds: float, *, blocked: bool = False) -> None:
        """Time goes by, and the event loop turns meanwhile or does not."""
        self.now += seconds
        if not blocked:
            self.watch._turned = self.now

    async def beat(self, *, answered: bool = True) -> None:
        self.coordinator.answers = answered
        await self.coordinator._do_heartbeat()


async def test_heartbeats_without_an_answer_are_told_after_a_session() -> None:
    group = Group()
    await group.beat()
    group.passes(SESSION)
    await group.beat(answered=False)
    group.watch.check()
    group.passes(1)
    with pytest.raises(TransientDriverError, match=r"has not answered a heartbeat for 31 s \(group 'billing'\)"):
        group.watch.check()

    await group.beat()
    group.watch.check()


@pytest.mark.parametrize("task", ["none", "done"])
async def test_a_rebalance_stands_for_heartbeats_however_long_it_takes(task: str) -> None:
    group = Group()
    beating = group.coordinator._heartbeat_task
    if task == "done":
        beating.set_result(None)
    else:
        group.coordinator._heartbeat_task = None

    group.passes(10 * SESSION)
    group.watch.check()
    group.coordinator._heartbeat_task = asyncio.Future()
    group.passes(SESSION)
    group.watch.check()
    group.passes(1)
    with pytest.raises(TransientDriverError, match="31 s"):
        group.watch.check()


async def test_a_group_without_a_coordinator_is_told_after_a_session() -> None:
    group = Group()
    group.coordinator.coordinator_id = None
    group.watch.check()
    group.passes(SESSION + 1)
    with pytest.raises(TransientDriverError, match="no broker says that it coordinates the group for 31 s"):
        group.watch.check()

    group.coordinator.coordinator_id = 2
    await group.beat()
    group.watch.check()


async def test_a_loop_that_was_blocked_is_told_in_other_words() -> None:
    group = Group()
    group.passes(SESSION + 1, blocked=True)
    with pytest.raises(TransientDriverError, match="the event loop was blocked for 31 s"):
        group.watch.check()
