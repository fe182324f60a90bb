"""Questions about offsets, each with a deadline: aiokafka tries again for as long as an error may pass."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection, Mapping
from typing import TypeVar

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.errors import KafkaError

from rustmq_sdk.drivers.kafka import metadata
from rustmq_sdk.drivers.kafka.failures import translate
from rustmq_sdk.errors import TransientDriverError
from rustmq_sdk.values import Checkpoint, TopicPartition

T = TypeVar("T")

Offsets = Mapping[TopicPartition, int]


class OffsetQueries:
    """Asks the brokers.

    Args:
        has_group: whether there can be committed positions.
        deadline: seconds that one question may take.
    """

    def __init__(self, consumer: AIOKafkaConsumer, *, has_group: bool, deadline: float) -> None:
        self._consumer = consumer
        self._has_group = has_group
        self._deadline = deadline

    async def committed(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, Checkpoint | None]:
        """The group's positions, with what was committed beside them: aiokafka's own call drops that."""
        if not self._has_group:
            return dict.fromkeys(partitions)

        coordinator = self._consumer._coordinator
        found = await self.ask("committed", coordinator.fetch_committed_offsets(_theirs(partitions)))
        positions: dict[TopicPartition, Checkpoint | None] = {}
        for tp in partitions:
            at = found.get(KafkaPartition(*tp))
            known = at is not None and at.offset >= 0
            positions[tp] = Checkpoint(at.offset, metadata.as_bytes(at.metadata)) if known else None

        return positions

    async def start(self, partitions: Collection[TopicPartition]) -> Offsets:
        """The first offsets that are still there."""
        found = await self.ask("start_offsets", self._consumer.beginning_offsets(_theirs(partitions)))
        return {tp: found[KafkaPartition(*tp)] for tp in partitions}

    async def end(self, partitions: Collection[TopicPartition]) -> Offsets:
        """One past the last record a reader may see: the last stable offset under ``read_committed``."""
        found = await self.ask("end_offsets", self._consumer.end_offsets(_theirs(partitions)))
        return {tp: found[KafkaPartition(*tp)] for tp in partitions}

    async def at_time(self, partitions: Collection[TopicPartition], timestamp_ms: int) -> Offsets:
        """The first offset whose record is not older; the end offset where there is none."""
        asked = dict.fromkeys(_theirs(partitions), timestamp_ms)
        found = await self.ask("offsets_at", self._consumer.offsets_for_times(asked))
        later = {tp: at.offset for tp in partitions if (at := found.get(KafkaPartition(*tp))) is not None}
        missing = [tp for tp in partitions if tp not in later]
        return later | dict(await self.end(missing)) if missing else later

    async def ask(self, operation: str, question: Awaitable[T]) -> T:
        """Waits for the answer to any question, until the deadline.

        Raises:
            DriverError: there was none.
        """
        try:
            async with asyncio.timeout(self._deadline):
                return await question
        except TimeoutError as error:
            raise TransientDriverError(
                f"no answer within {self._deadline:g} s", slot="source", operation=operation
            ) from error
        except KafkaError as error:
            raise translate(error, slot="source", operation=operation) from error


def _theirs(partitions: Collection[TopicPartition]) -> list[KafkaPartition]:
    return [KafkaPartition(*tp) for tp in partitions]
