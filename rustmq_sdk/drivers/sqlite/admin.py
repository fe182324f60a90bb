"""Topics, for those who administrate them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from rustmq_sdk._log import log
from rustmq_sdk.drivers.sqlite import topics
from rustmq_sdk.drivers.sqlite.file import LogFile
from rustmq_sdk.drivers.sqlite.options import Retention


class SqliteAdmin:
    """Fills :class:`rustmq_sdk.slots.Admin`. Settings of a topic: ``retention_age`` and ``retention_bytes``."""

    def __init__(self, file: LogFile) -> None:
        self._file = file

    async def create_topic(self, name: str, partitions: int, settings: Mapping[str, Any]) -> None:
        retention = Retention(**settings)
        before = await self._file.write(
            "admin", "create_topic", topics.ensure, name, partitions, retention, settings.keys()
        )
        if before is not None:
            _warn_of_change(name, before, {setting: getattr(retention, setting) for setting in settings})

    async def delete_topic(self, name: str) -> None:
        await self._file.write("admin", "delete_topic", topics.delete, name)

    async def topics(self) -> Mapping[str, int]:
        return await self._file.read("admin", "topics", topics.counts)


def _warn_of_change(topic: str, before: Retention, given: Mapping[str, Any]) -> None:
    """Two programs that ask for different retention would overrule each other at each start, unseen."""
    changed = {name: value for name, value in given.items() if value != getattr(before, name)}
    log(
        logging.WARNING,
        "topic_settings_changed",
        "topic %s exists, and has other settings from now on: %s",
        topic,
        ", ".join(f"{name}={_said(value)} (was {_said(getattr(before, name))})" for name, value in changed.items()),
    )


def _said(value: float | None) -> str:
    """A number as it would be written by hand, whether it was given or comes from the file."""
    return f"{value:g}" if isinstance(value, float) else str(value)
