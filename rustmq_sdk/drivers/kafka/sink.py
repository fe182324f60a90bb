"""Appending."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from rustmq_sdk._asyncio_island import Island
from rustmq_sdk.drivers.kafka.producing import Producing
from rustmq_sdk.slots import Sink
from rustmq_sdk.values import OutgoingMessage, ProducerSequence, SentMessage


class KafkaSink:
    """Fills :class:`rustmq_sdk.slots.Sink`: all replicas have an append when it returns, and a repeated one is one."""

    def __init__(self, island: Island, producing: Producing) -> None:
        self._island = island
        self._producing = producing

    async def partitions(self, topic: str) -> int:
        return await self._island.run(self._producing.partitions, topic)

    async def append(
        self,
        topic: str,
        partition: int,
        messages: Sequence[OutgoingMessage],
        *,
        sequence: ProducerSequence | None,
    ) -> Sequence[SentMessage]:
        if not messages:
            return []

        append = partial(self._producing.append, hurried=sequence is not None)
        return await self._island.run(append, topic, partition, messages, sequence)


def _conforms(sink: KafkaSink) -> Sink:
    return sink
