"""Topics, for those who administrate them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rustmq_sdk._asyncio_island import Island
from rustmq_sdk.drivers.kafka.administrating import Administrating
from rustmq_sdk.drivers.kafka.topic_settings import read_topic_settings
from rustmq_sdk.slots import Admin


class KafkaAdmin:
    """Fills :class:`rustmq_sdk.slots.Admin`.

    Settings of a topic: ``replication_factor``, and Kafka's topic configs with underscores for dots (``retention_ms``).
    """

    def __init__(self, island: Island, administrating: Administrating, replication_factor: int | None) -> None:
        self._island = island
        self._administrating = administrating
        self._replication_factor = replication_factor

    async def create_topic(self, name: str, partitions: int, settings: Mapping[str, Any]) -> None:
        read = read_topic_settings(settings, self._replication_factor)
        await self._island.run(self._administrating.create, name, partitions, read)

    async def delete_topic(self, name: str) -> None:
        await self._island.run(self._administrating.delete, name)

    async def topics(self) -> Mapping[str, int]:
        return await self._island.run(self._administrating.topics)


def _conforms(admin: KafkaAdmin) -> Admin:
    return admin
