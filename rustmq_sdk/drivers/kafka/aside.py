"""A second connection to each broker, for what must not wait for a fetch.

A broker answers the requests of one connection in turn, and keeps a fetch that finds nothing for ``fetch_max_wait``.
aiokafka fetches without a pause, so whatever else it sends on that connection waits for half a second.
"""

from __future__ import annotations

from typing import Any

from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.protocol.offset import OffsetRequest

ASIDE: int = max(ConnectionGroup) + 1
"""aiokafka keeps a connection for each broker and group of requests, and opens one for a group that is new."""


def ask_for_offsets_aside(client: AIOKafkaClient) -> None:
    """Has the client ask for starts, ends and times of partitions on a connection without fetches."""
    send = client.send

    async def send_by_kind(node_id: int, request: Any, *, group: int = ConnectionGroup.DEFAULT) -> Any:
        return await send(node_id, request, group=ASIDE if isinstance(request, OffsetRequest) else group)

    client.send = send_by_kind
