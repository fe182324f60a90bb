"""Static membership, where aiokafka leaves it half done.

A broker takes a member that joins with a known ``group.instance.id`` for the old one come back. It gives it what that
one had, whatever topics it asks for now, and it tells the old one that it is unknown, if that one still lives. aiokafka
then joins again, under the same name, and the two take the partitions from each other for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.client import ConnectionGroup
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.coordinator.protocol import ConsumerProtocol
from aiokafka.errors import KafkaError
from aiokafka.protocol.group import LeaveGroupRequest

from rustmq_sdk.drivers.kafka.failures import FencedInstanceId, broker_error
from rustmq_sdk.drivers.kafka.static_requests import MembersRequest, StaticHeartbeat

RETRY_PAUSE = 0.1
"""Seconds before a question that was not answered is asked again: aiokafka's own."""


class StaticMembership:
    """Looks before the member joins: whether its name is somebody else's by now, and what it stood for before.

    Args:
        instance: the member's name.
    """

    def __init__(self, consumer: AIOKafkaConsumer, instance: str) -> None:
        self._instance = instance
        self._coordinator: GroupCoordinator = consumer._coordinator
        self._join = self._coordinator._do_rejoin_group
        self._coordinator._do_rejoin_group = self._look_and_join
        self._complete = self._coordinator._on_join_complete
        self._coordinator._on_join_complete = self._remember_and_complete
        self._send = self._coordinator._send_req
        self._coordinator._send_req = self._send_and_look
        self._joined: tuple[int, str] | None = None
        self._taken = False

    async def _look_and_join(self, subscription: Any) -> bool:
        """In aiokafka's coordination task: what it raises ends the consumer, and False has it called again.

        It is called again also after it has raised, until the consumer is closed. To join then would take the name
        back.
        """
        if self._taken:
            raise self._fenced()

        try:
            if self._joined is None:
                await self._give_up_other_topics(subscription.topics)
            elif not self._coordinator.member_id:
                await self._check_name(*self._joined)
        except FencedInstanceId:
            raise
        except KafkaError as error:
            if not error.retriable:
                raise

            await asyncio.sleep(RETRY_PAUSE)
            return False

        try:
            return bool(await self._join(subscription))
        except KafkaError as error:
            if self._taken:
                raise self._fenced() from error

            raise

    async def _send_and_look(self, request: Any) -> Any:
        """Notices an error that aiokafka does not know: the name was taken while we joined."""
        answer = await self._send(request)
        if getattr(answer, "error_code", 0) == FencedInstanceId.errno:
            self._taken = True

        return answer

    async def _remember_and_complete(self, generation: int, member: str, *about: Any) -> None:
        # Before the partitions are told: a name that is taken meanwhile is known by what it stood for.
        self._joined = generation, member
        await self._complete(generation, member, *about)

    async def _check_name(self, generation: int, member: str) -> None:
        """Raises ``FencedInstanceId`` if somebody else has our name: to join would take it back, and so on."""
        answer = await self._ask(StaticHeartbeat(self._coordinator.group_id, generation, member, self._instance))
        if isinstance(broker_error(answer.error_code), FencedInstanceId):
            self._taken = True
            raise self._fenced()

    def _fenced(self) -> FencedInstanceId:
        return FencedInstanceId(f"group {self._coordinator.group_id!r}, group_instance_id={self._instance!r}")

    async def _give_up_other_topics(self, topics: Collection[str]) -> None:
        """Leaves in the name of the one before, if that one read other topics: then there is a rebalance."""
        answer = await self._ask(MembersRequest(self._coordinator.group_id))
        for code, _, _, _, _, members, _ in answer.groups:
            if code:
                continue

            for member, instance, _, _, about, _ in members:
                if instance == self._instance and about and set(_topics(about)) != set(topics):
                    await self._ask(LeaveGroupRequest(self._coordinator.group_id, member))

    async def _ask(self, request: Any) -> Any:
        coordinator = self._coordinator
        return await coordinator._client.send(coordinator.coordinator_id, request, group=ConnectionGroup.COORDINATION)


def _topics(about: bytes) -> Collection[str]:
    subscribed: list[str] = ConsumerProtocol.METADATA.decode(about).subscription
    return subscribed
