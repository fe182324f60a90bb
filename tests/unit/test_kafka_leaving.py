"""Leaving a group: told at once, over a connection that is free. These classes know asyncio only."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

pytest.importorskip("aiokafka")

from aiokafka.client import ConnectionGroup
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.protocol.group import LeaveGroupRequest

from rustmq_sdk.drivers.kafka.leaving import leave

pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])

NODE = 1


class Connection:
    """The way to a broker, with questions under way."""

    def __init__(self, questions: Sequence[object] = ()) -> None:
        self._requests = questions
        self._writer = None

    def connected(self) -> bool:
        return True

    def close(self, reason: object) -> None:
        pass


class Client:
    """As much of aiokafka's as leaving uses.

    Attributes:
        told: for each LeaveGroup the member, and the group of requests whose connection it took.
    """

    def __init__(self, coordination: Connection | None) -> None:
        self._conns = {(NODE, ConnectionGroup.DEFAULT): Connection()}
        if coordination is not None:
            self._conns[NODE, ConnectionGroup.COORDINATION] = coordination

        self._sync_task = None
        self.told: list[tuple[str, int]] = []

    async def send(self, node: int, request: Any, *, group: int) -> None:
        assert isinstance(request, LeaveGroupRequest)
        self.told.append((request._member_id, int(group)))


class Coordinator(GroupCoordinator):  # type: ignore[misc]  # aiokafka has no types for us to see
    """A member whose coordination task waits for an answer, or for what there is to do."""

    def __init__(self, client: Client, *, member: str = "me", rebalances: bool = False) -> None:
        self._client = client
        self._closing: asyncio.Future[None] = asyncio.Future()
        self._heartbeat_task = self._commit_refresh_task = self._reset_committed_task = None
        self.group_id, self.member_id, self.coordinator_id, self.generation = "g", member, NODE, 3
        self.answer: asyncio.Future[str] = asyncio.Future()
        self._coordination_task = asyncio.create_task(self._join() if rebalances else self._idle())

    async def _idle(self) -> None:
        await self._closing

    async def _join(self) -> None:
        self.member_id = await self.answer


def consumer_of(coordinator: Coordinator) -> Any:
    return SimpleNamespace(_coordinator=coordinator, _client=coordinator._client, _fetcher=None)


async def test_the_group_is_told_at_once_in_the_middle_of_a_rebalance() -> None:
    client = Client(Connection(["JoinGroup"]))
    coordinator = Coordinator(client, rebalances=True)
    with anyio.fail_after(30):
        await leave(consumer_of(coordinator), static=False)

    assert [member for member, _ in client.told] == ["me"]
    await asyncio.wait([coordinator._coordination_task])
    assert coordinator._coordination_task.cancelled()


@pytest.mark.parametrize("coordination", [None, Connection(["JoinGroup"])], ids=["none", "busy"])
async def test_it_is_told_over_a_connection_where_nothing_is_waited_for(coordination: Connection | None) -> None:
    client = Client(coordination)
    await leave(consumer_of(Coordinator(client)), static=False)
    ((_, way),) = client.told
    assert way not in list(ConnectionGroup), "a broker answers in turn, and there is always a fetch on the default one"


async def test_it_is_told_over_the_coordinators_connection_where_that_is_free() -> None:
    client = Client(Connection())
    await leave(consumer_of(Coordinator(client)), static=False)
    assert client.told == [("me", ConnectionGroup.COORDINATION)]


@pytest.mark.parametrize("before", ["", "me"])
async def test_a_member_that_is_let_in_while_it_leaves_takes_that_back(before: str) -> None:
    client = Client(Connection())
    coordinator = Coordinator(client, member=before, rebalances=True)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(leave(consumer_of(coordinator), static=False))
        await asyncio.wait([coordinator._closing])
        await asyncio.sleep(0)
        coordinator.answer.set_result("member 7")

    assert [member for member, _ in client.told] == ([before] if before else []) + ["member 7"]


async def test_a_static_member_tells_nobody() -> None:
    client = Client(Connection())
    await leave(consumer_of(Coordinator(client)), static=True)
    assert client.told == []


async def test_who_was_never_let_in_has_nothing_to_tell() -> None:
    client = Client(Connection(["JoinGroup"]))
    await leave(consumer_of(Coordinator(client, member="", rebalances=True)), static=False)
    assert client.told == []
