"""Partitions without a rebalance: those that the user has named, or all of some topics for a reader without a group.

Nobody takes them away, so there is no generation. Topics may get more partitions, and be deleted and created again;
that is found by looking.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition

from rustmq_sdk.drivers.kafka.assigning import Assigning
from rustmq_sdk.drivers.kafka.holdings import Holdings
from rustmq_sdk.drivers.kafka.quieting import said_by_us
from rustmq_sdk.drivers.kafka.topics import Wanted
from rustmq_sdk.slots import AssignmentListener
from rustmq_sdk.values import TopicPartition

LOOK_SECONDS = 5.0
"""Between two looks for new partitions."""


class ManualAssignment(Assigning):
    """Assigns what is wanted, and what joins it later.

    Args:
        wanted: topics, a pattern, or partitions.
    """

    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        listener: AssignmentListener,
        holdings: Holdings,
        wanted: Wanted,
        *,
        interrupt: Callable[[], None],
    ) -> None:
        super().__init__(consumer, listener, holdings, interrupt=interrupt)
        self._wanted = wanted

    async def run(self) -> None:
        """Until cancelled, or until something fails for good."""
        reason = "assigned"
        while True:
            try:
                await self._look(reason)
                self._succeed()
                reason = "topics_changed"
                await asyncio.sleep(LOOK_SECONDS)
                await self._consumer._client.force_metadata_update()
            except Exception as error:
                if not self._fail(error):
                    return

                await self._pause()

    async def _look(self, reason: str) -> None:
        existing = set(self._existing())
        gone = [each for each in self._holdings.held if self._holdings.partition(each) not in existing]
        if gone:
            self._holdings.drop(gone)
            self._assign()
            await self._listener.lost(gone, reason="topics_changed")

        known = {self._holdings.partition(each) for each in self._holdings.held}
        self.leaderless = await self._without_leader(existing - known)
        if fresh := sorted(existing - known - set(self.leaderless)):
            names = [TopicPartition(partition.topic, partition.partition) for partition in fresh]
            starts = await self._listener.assigned(names, None, reason=reason)
            self._holdings.take(starts, None)
            self._assign()
            self._interrupt()

    def _assign(self) -> None:
        # aiokafka forgets the positions of all partitions at each assign().
        held = {
            partition: self._holdings.position(one) for one, partition in self._holdings.wanted(self._holdings.held)
        }
        with said_by_us():
            self._consumer.assign(list(held))

        if self._wanted.pattern is not None:
            # It would ask for the topics of these partitions only, and find no new one.
            self._consumer._client.set_topics([])

        for partition, offset in held.items():
            self._consumer.seek(partition, offset)

    def _existing(self) -> Sequence[KafkaPartition]:
        if self._wanted.partitions:
            return [one for one in self._wanted.partitions if one.partition in self._numbers(one.topic)]

        return [KafkaPartition(topic, number) for topic in self._topics() for number in self._numbers(topic)]

    def _topics(self) -> Collection[str]:
        pattern = self._wanted.pattern
        if pattern is None:
            return self._wanted.names

        return [topic for topic in self._consumer._client.cluster.topics() if pattern.match(topic)]

    def _numbers(self, topic: str) -> Collection[int]:
        return self._consumer.partitions_for_topic(topic) or ()
