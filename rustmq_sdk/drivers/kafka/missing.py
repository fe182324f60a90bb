"""Topics that are read and do not exist (any more): named, and looked for.

aiokafka asks for topics every ``metadata_max_age`` seconds. A member whose topic was deleted has no partitions until
then, says nothing, and looks healthy.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from aiokafka import AIOKafkaConsumer

LOOK_SECONDS = 5.0
"""Between two looks for a topic that is missing."""


class MissingTopics:
    """Those of a subscription by name.

    Args:
        names: of all that are read.
    """

    def __init__(self, consumer: AIOKafkaConsumer, names: Sequence[str]) -> None:
        self._consumer = consumer
        self._names = names
        self._told: set[str] = set()

    @property
    def names(self) -> Sequence[str]:
        """As the brokers said last."""
        return [name for name in self._names if not self._consumer.partitions_for_topic(name)]

    async def look(self) -> None:
        """Until cancelled. What is found has aiokafka join again, with the partitions."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.tell()
            if self.names:
                await self._consumer._client.force_metadata_update()

    def tell(self) -> None:
        """Warns of each topic, once for each time that it goes missing."""
        missing = set(self.names)
        for name in sorted(missing - self._told):
            logging.getLogger("rustmq_sdk").warning(
                "topic %s does not exist any more. It is read again soon after somebody has made it again",
                name,
                extra={"event": "topic_missing"},
            )

        self._told = missing
