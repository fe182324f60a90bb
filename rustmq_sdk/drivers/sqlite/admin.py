"""Topics, for those who administrate them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rustmq_sdk.drivers.sqlite import topics
from rustmq_sdk.drivers.sqlite.file import LogFile
from rustmq_sdk.drivers.sqlite.options import read_settings
from rustmq_sdk.slots import Admin


class SqliteAdmin:
    """Fills :class:`rustmq_sdk.slots.Admin`. Settings of a topic: ``retention_age`` and ``retention_bytes``."""

    def __init__(self, file: LogFile) -> None:
        self._file = file

    async def create_topic(self, name: str, partitions: int, settings: Mapping[str, Any]) -> None:
        retention = read_settings(settings)
        await self._file.write("admin", "create_topic", topics.create, name, partitions, retention)

    async def delete_topic(self, name: str) -> None:
        await self._file.write("admin", "delete_topic", topics.delete, name)

    async def topics(self) -> Mapping[str, int]:
        return await self._file.read("admin", "topics", topics.counts)


def _conforms(admin: SqliteAdmin) -> Admin:
    return admin
