"""Leaving, within a deadline, whatever the brokers do.

aiokafka's ``stop()`` has none: it waits for a JoinGroup that is under way (which the broker answers when all other
members have finished their work, or died), for callbacks, and for brokers that do not answer. So the parts are ended
here one by one, each with a share of the time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from contextlib import suppress

from aiokafka import AIOKafkaConsumer
from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.conn import CloseReason
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.protocol.group import LeaveGroupRequest

from rustmq_sdk.drivers.kafka.aside import ASIDE

PART_SECONDS = 0.5
"""For each part: more than any of them takes where the brokers are well."""


async def leave(consumer: AIOKafkaConsumer, *, static: bool) -> None:
    """Leaves the group, unless the membership is static, and closes all connections.

    Raises nothing: a group that could not be told finds out when the session is over. Cancelled, because its own time
    is over as well, it cuts the connections and is gone.
    """
    try:
        await _leave(consumer, static=static)
    finally:
        _cut_off(consumer)

    # The loop may be closed next, and what was aborted is closed in its next round.
    await asyncio.sleep(0)


async def _leave(consumer: AIOKafkaConsumer, *, static: bool) -> None:
    coordinator = consumer._coordinator
    if isinstance(coordinator, GroupCoordinator):
        await _end_membership(coordinator, static=static)
    elif coordinator is not None:
        await _end(coordinator.close())

    if consumer._fetcher is not None:
        await _end(consumer._fetcher.close())


def _cut_off(consumer: AIOKafkaConsumer) -> None:
    """Ends what is left of it, without waiting for anything.

    aiokafka's own close begins the farewell of TLS, and leaves before it is over.
    """
    # It is stopped, and says nothing about it when it is collected.
    consumer._closed = True
    for task in _tasks_of(consumer):
        task.cancel()

    for connection in list(consumer._client._conns.values()):
        writer = connection._writer
        connection.close(reason=CloseReason.SHUTDOWN)
        if writer is not None:
            writer.transport.abort()


def _tasks_of(consumer: AIOKafkaConsumer) -> Iterator[asyncio.Task[object]]:
    coordinator, fetcher = consumer._coordinator, consumer._fetcher
    named = (
        (coordinator, ("_coordination_task", "_heartbeat_task", "_commit_refresh_task", "_reset_committed_task")),
        (fetcher, ("_fetch_task",)),
        (consumer._client, ("_sync_task",)),
    )
    for owner, names in named:
        for name in names:
            if (task := getattr(owner, name, None)) is not None:
                yield task

    yield from list(fetcher._pending_tasks) if fetcher is not None else ()


async def _end_membership(coordinator: GroupCoordinator, *, static: bool) -> None:
    if not coordinator._closing.done():
        coordinator._closing.set_result(None)

    # First of all: what else there is to do has no end in a rebalance, and the time may be a tenth of a second.
    told = coordinator.member_id
    if not static:
        await _end(_tell_group(coordinator))

    task = coordinator._coordination_task
    await asyncio.wait([task], timeout=PART_SECONDS / 5)
    if not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=PART_SECONDS)

    if not static and coordinator.member_id != told:
        await _end(_tell_group(coordinator))  # it was let in meanwhile

    # Without a generation close() and the heartbeats have nothing to tell anybody.
    coordinator.generation = -1
    coordinator.member_id = ""
    await _end(coordinator._stop_heartbeat_task())
    await _end(coordinator._stop_commit_offsets_refresh_task())


async def _tell_group(coordinator: GroupCoordinator) -> None:
    if coordinator.member_id and coordinator.coordinator_id is not None:
        request = LeaveGroupRequest(coordinator.group_id, coordinator.member_id)
        way = _free_way(coordinator._client, coordinator.coordinator_id)
        await coordinator._client.send(coordinator.coordinator_id, request, group=way)


def _free_way(client: AIOKafkaClient, node: int) -> int:
    """The connection to use: a JoinGroup may be waiting on the coordinator's, for all other members."""
    connection = client._conns.get((node, ConnectionGroup.COORDINATION))
    if connection is not None and connection.connected() and not connection._requests:
        return int(ConnectionGroup.COORDINATION)

    return ASIDE


async def _end(part: Awaitable[object]) -> None:
    """Waits for a part, not for long; what it raises (CancelledError of its own, at times) concerns nobody any more."""
    task = asyncio.ensure_future(part)
    try:
        await asyncio.wait([task], timeout=PART_SECONDS)
    finally:
        if not task.done():
            task.cancel()
        elif not task.cancelled():
            with suppress(Exception):
                task.exception()
