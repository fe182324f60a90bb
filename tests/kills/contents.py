"""What the log has in the end."""

from __future__ import annotations

from collections import defaultdict

import rustmq_sdk
from tests.kills.lives import Place
from tests.kills.sender import TOPIC

PATIENCE = 30.0


async def contents(client: rustmq_sdk.Client, partitions: int, topic: str = TOPIC) -> dict[str, list[Place]]:
    """Each payload, and where it is; read without a group, while nobody sends any more."""
    found: dict[str, list[Place]] = defaultdict(list)
    async with client.consumer(topic, group=None) as consumer:
        while len(consumer.assigned_partitions) < partitions or any((await consumer.get_lag()).values()):
            batch = await consumer.receive_batch(timeout=PATIENCE)
            for message in batch:
                assert message.partition is not None
                assert message.offset is not None
                found[message.text()].append((message.partition, message.offset))

            await batch.ack()  # or what may be in flight is used up

    return dict(found)
