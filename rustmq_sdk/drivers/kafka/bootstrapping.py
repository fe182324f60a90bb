"""Finding the cluster, with a connection that is closed in any case.

aiokafka keeps that connection to itself until it has an answer. Whoever is cancelled meanwhile leaves it open, with a
task that reads from it for ever.
"""

from __future__ import annotations

import asyncio
from typing import Any

from aiokafka.client import AIOKafkaClient
from aiokafka.conn import CloseReason
from aiokafka.errors import KafkaConnectionError, KafkaError
from aiokafka.protocol.metadata import MetadataRequest

from rustmq_sdk.drivers.kafka.connecting import Connection


def close_first_connection(client: AIOKafkaClient, settings: dict[str, Any]) -> None:
    """Has the client find its cluster in this way.

    Args:
        client: not started yet.
        settings: that it was made with, from :func:`~rustmq_sdk.drivers.kafka.settings.client_settings`.
    """
    settings = {name: value for name, value in settings.items() if name != "bootstrap_servers"}

    async def bootstrap() -> None:
        reason: Exception | None = None
        for host, port, _ in client.hosts:
            connection = Connection(host, port, **settings, request_timeout_ms=client._request_timeout_ms)
            try:
                await connection.connect()
                client.cluster.update_metadata(await connection.send(MetadataRequest([])))
            except (OSError, KafkaError, TimeoutError) as error:
                reason = error
            else:
                client._sync_task = asyncio.create_task(client._md_synchronizer())
                return
            finally:
                connection.close(reason=CloseReason.SHUTDOWN)

        raise KafkaConnectionError(f"Unable to bootstrap from {client.hosts}") from reason

    client.bootstrap = bootstrap
