"""What the log does not have at the position where it is to be read: lost, or damaged."""

from __future__ import annotations

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition

from rustmq_sdk.drivers.kafka.holdings import Holdings
from rustmq_sdk.drivers.kafka.offsets import OffsetQueries
from rustmq_sdk.drivers.kafka.records import build
from rustmq_sdk.slots import Fetched
from rustmq_sdk.values import Assignment, Broken, Gone

CORRUPT_READS = 3
"""A damaged batch is fetched again so often, perhaps from another replica, before it is handed over as broken."""


class Gaps:
    """Goes on behind them, and says what was passed."""

    def __init__(self, consumer: AIOKafkaConsumer, holdings: Holdings, offsets: OffsetQueries) -> None:
        self._consumer = consumer
        self._holdings = holdings
        self._offsets = offsets
        self._corrupt: dict[KafkaPartition, tuple[int, int]] = {}

    async def out_of_range(self, assignment: Assignment, partition: KafkaPartition) -> Fetched | None:
        """The position is below the first offset, or beyond the end."""
        tp, at = assignment.tp, self._holdings.position(assignment)
        start = (await self._offsets.start([tp]))[tp]
        end = (await self._offsets.end([tp]))[tp]
        # Since asking took its time: it may have been taken away, or sought elsewhere.
        if self._holdings.partition(assignment) != partition or self._holdings.position(assignment) != at:
            return None

        if at > end:
            reason = (
                f"the position is {at} and the log has only offsets {start} to {end}: the topic was deleted and "
                "created again, or the broker has lost its end"
            )
            return Fetched(assignment, (), (), build, at, 0, gone=(Gone(tp, at, at, reason, restart=start),))

        self._move(assignment, partition, max(at, start))
        if start <= at:
            return None  # it was out of range for a moment: a new leader that had not caught up

        return Fetched(assignment, (), (), build, start, 0, gone=(Gone(tp, at, start, "retention"),))

    def corrupt(self, assignment: Assignment, partition: KafkaPartition, error: Exception) -> Fetched | None:
        """The batch at the position fails its checksum: None to fetch it again, or what cannot be read of it."""
        at = self._holdings.position(assignment)
        before, times = self._corrupt.get(partition, (at, 0))
        times = times + 1 if before == at else 1
        self._corrupt[partition] = (at, times)
        if times < CORRUPT_READS:
            self._move(assignment, partition, at)
            return None

        self._move(assignment, partition, at + 1)
        return Fetched(assignment, (), (), build, at + 1, 0, broken=(Broken(at, b"", error),))

    def _move(self, assignment: Assignment, partition: KafkaPartition, offset: int) -> None:
        self._consumer.seek(partition, offset)
        self._holdings.move(assignment, offset)
