"""Who leads a partition, asked until it is known. On an asyncio loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiokafka import errors as kafka

from rustmq_sdk.drivers.kafka.cluster import Cluster, Topic
from rustmq_sdk.drivers.kafka.failures import NotSent, Unanswered, broker_error, no_topic
from rustmq_sdk.drivers.kafka.patience import Patience
from rustmq_sdk.errors import UnknownTopic

LAGGING = 1.0
"""Seconds for which a topic that was there may be missing: a broker that has just started may not know it yet."""

MakeTopic = Callable[[str], Awaitable[object]]


class Leaders:
    """Finds the leaders of partitions.

    Args:
        cluster: open.
        make_topic: makes a topic that does not exist; None: that is an ``UnknownTopic``.
    """

    def __init__(self, cluster: Cluster, make_topic: MakeTopic | None) -> None:
        self._cluster = cluster
        self._make_topic = make_topic
        self._seen: set[str] = set()

    async def topic(self, name: str, patience: Patience) -> Topic:
        """The topic, from memory if possible.

        Raises:
            UnknownTopic: there is none.
            AuthenticationFailed: we may not see it.
        """
        made = False
        while True:
            try:
                topic = await self._cluster.known(name)
            except (NotSent, Unanswered) as error:
                await patience.pause(error)
                continue

            if not topic.error:
                self._seen.add(name)
                return topic

            problem = broker_error(topic.error, name)
            if isinstance(problem, kafka.UnknownTopicOrPartitionError):
                if self._make_topic is not None and not made:
                    await self._make_topic(name)
                    made = True
                    continue

                self._check_missing(name, patience)
            elif not getattr(problem, "retriable", False):
                raise patience.failure(patience.translated(problem, name)) from problem

            await patience.pause(problem)

    async def leader(self, name: str, partition: int, patience: Patience) -> int:
        """The broker that leads the partition now.

        Raises:
            UnknownTopic: there is no such topic or partition.
        """
        looked = False
        while True:
            topic = await self.topic(name, patience)
            node = topic.leaders.get(partition)
            if node is not None and node in self._cluster.nodes:
                return node

            if node is None and looked:
                raise patience.failure(_no_partition(name, partition, len(topic.leaders), patience))

            self._cluster.forget(name)  # what is in memory may be old: partitions are added, leaders move
            looked = True
            if node is not None:
                await patience.pause(kafka.LeaderNotAvailableError(f"{name}[{partition}]"))

    def forget(self, name: str) -> None:
        """What is known of the topic is wrong now."""
        self._cluster.forget(name)

    def _check_missing(self, name: str, patience: Patience) -> None:
        if name in self._seen and patience.waited < LAGGING:
            return

        self._seen.discard(name)
        raise patience.failure(no_topic(name, slot=patience.slot, operation=patience.operation))


def _no_partition(name: str, partition: int, count: int, patience: Patience) -> UnknownTopic:
    return UnknownTopic(
        f"{name} has the partitions 0 to {count - 1}, and no partition {partition}",
        slot=patience.slot,
        operation=patience.operation,
    )
