"""What is to be read and cannot be: topics and partitions that do not exist (yet, or any more) or that no broker leads.

aiokafka asks for topics every ``metadata_max_age`` seconds. A member whose topic was deleted has no partitions until
then, says nothing, and looks healthy.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterator, Mapping

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition

from rustmq_sdk._log import log
from rustmq_sdk.drivers.kafka.assigning import NO_LEADER
from rustmq_sdk.drivers.kafka.holdings import Holdings
from rustmq_sdk.drivers.kafka.topics import Wanted

LOOK_SECONDS = 5.0
"""Between two looks for what is missing."""


class MissingTopics:
    """Those of a subscription.

    Args:
        wanted: all that is read.
        holdings: what is ours.
        leaderless: partitions that are not read yet, since no broker leads them.
    """

    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        wanted: Wanted,
        holdings: Holdings,
        leaderless: Callable[[], Collection[KafkaPartition]],
    ) -> None:
        self._consumer = consumer
        self._wanted = wanted
        self._holdings = holdings
        self._leaderless = leaderless
        self._told: set[str] = set()
        self._lost_leader: Collection[KafkaPartition] = ()

    @property
    def reasons(self) -> Mapping[str, str]:
        """What is missing as it was named, each with what to say of it, as the brokers said last."""
        return dict(self._missing())

    async def look(self) -> None:
        """Until cancelled. What is found has aiokafka join again, with the partitions."""
        before: set[KafkaPartition] = set()
        while True:
            self._tell()
            await asyncio.sleep(LOOK_SECONDS)
            now = set(self._without_leader())
            # Twice: an election is over within moments, and nothing to tell of.
            self._lost_leader, before = sorted(now & before), now
            if self.reasons or now:
                await self._consumer._client.force_metadata_update()

    def _missing(self) -> Iterator[tuple[str, str]]:
        for topic, number in [*self._leaderless(), *self._lost_leader]:
            name = f"{topic}[{number}]"
            yield name, f"no broker that can be reached leads {name}; it is read as soon as one does"

        for name in self._wanted.names:
            if not self._consumer.partitions_for_topic(name):
                yield name, f"topic {name!r} does not exist; waiting until somebody creates it"

        # What is asked at each fetch should be cheap while all is well.
        if len(self._holdings.held) < len(self._wanted.partitions):
            for partition in self._wanted.partitions:
                yield from self._without(partition)

        pattern = self._wanted.pattern
        if pattern is not None and not self._holdings.held:
            topics = self._consumer._client.cluster.topics()
            if not any(pattern.match(topic) for topic in topics):
                yield pattern.pattern, f"no topic matches {pattern.pattern!r}; waiting until somebody creates one"

    def _without_leader(self) -> Iterator[KafkaPartition]:
        """Of those that are ours."""
        cluster = self._consumer._client.cluster
        for _, partition in self._holdings.wanted(self._holdings.held):
            if cluster.leader_for_partition(partition) in (None, NO_LEADER):
                yield partition

    def _without(self, partition: KafkaPartition) -> Iterator[tuple[str, str]]:
        name = f"{partition.topic}[{partition.partition}]"
        there = self._consumer.partitions_for_topic(partition.topic)
        if not there:
            yield name, f"topic {partition.topic!r} does not exist; waiting until somebody creates it"
        elif partition.partition not in there:
            has = f"partitions 0 to {max(there)}" if max(there) else "partition 0 only"
            yield name, f"topic {partition.topic!r} has {has}; waiting for {name} until somebody adds it"

    def _tell(self) -> None:
        """Warns of each, once for each time that it goes missing."""
        missing = self.reasons
        for name in missing.keys() - self._told:
            log(logging.WARNING, "topic_missing", "%s", missing[name])

        self._told = set(missing)
