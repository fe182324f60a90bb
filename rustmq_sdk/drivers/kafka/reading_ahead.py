"""Asking a broker for more while some of what it sent waits.

aiokafka asks a broker for nothing as long as it has records from there that came within the last 0.1 s. It is afraid of
a request for those partitions only that have nothing new: such a one keeps the broker's connection for
``fetch_max_wait``, and all other partitions with it. But whoever reads quicker than that has nothing to do each time
until more has come, for a quarter of the time with messages of 100 bytes.

A partition whose log is known to go on is answered at once, and so is the request that it is in. So where such a one is
used up, the others' records keep nobody from asking.
"""

from __future__ import annotations

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.consumer.fetcher import READ_COMMITTED, FetchResult

FEW = 16
"""Partitions with records in aiokafka's table, at most, when more is asked for: each has ``max_partition_fetch_bytes``
of them, and one answer has 50 MiB."""


class ReadingAhead:
    """Which brokers should be asked at once."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer
        self._brokers: set[int] = set()

    def used_up(self, partition: KafkaPartition) -> None:
        """The last record that had come of it was taken."""
        fetcher = self._consumer._fetcher
        state = self._consumer._subscription.subscription.assignment.state_value(partition)
        # What is not committed yet is beyond the end for whoever waits for the commit.
        end = state.lso if fetcher._isolation_level == READ_COMMITTED else state.highwater
        broker = fetcher._select_read_replica(partition)
        if end is not None and state.position < end and broker is not None:
            self._brokers.add(broker)

    def ask(self) -> None:
        """Has aiokafka ask the brokers that it would keep waiting. Cheap where there are none."""
        if not self._brokers:
            return

        fetcher = self._consumer._fetcher
        brokers = self._brokers - fetcher._in_flight
        if not brokers or len(fetcher._records) > FEW:
            return

        self._brokers -= brokers
        for partition, arrived in fetcher._records.items():
            if type(arrived) is FetchResult and fetcher._select_read_replica(partition) in brokers:
                arrived._backoff = 0

        fetcher._notify(fetcher._wait_consume_future)
