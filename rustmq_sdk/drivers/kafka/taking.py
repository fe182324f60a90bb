"""Taking what aiokafka has fetched of a partition: by the batch where its release is known, else by ``getmany()``.

Either way nothing suspends outside a reassignment, and what comes before a damaged batch comes.
"""

from __future__ import annotations

from collections.abc import Sequence

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.consumer.fetcher import FetchResult
from aiokafka.errors import CorruptRecordException

from rustmq_sdk.drivers.kafka import bare
from rustmq_sdk.drivers.kafka.reading_ahead import ReadingAhead
from rustmq_sdk.drivers.kafka.records import Row, rows_of


class Taking:
    """What was fetched for one consumer."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer
        self._ahead = ReadingAhead(consumer)
        # Records until the damage is passed, at most.
        self._slowly: dict[KafkaPartition, int] = {}

    def position(self, partition: KafkaPartition) -> int:
        """Where aiokafka reads on."""
        return self._consumer._subscription.subscription.assignment.state_value(partition).position  # type: ignore[no-any-return]

    async def take(self, partition: KafkaPartition, most: int) -> Sequence[Row]:
        """Up to ``most``, if it has any; the position moves behind them.

        Raises:
            CorruptRecordException: the batch at the position fails its checksum.
            KafkaError: what a request has met meanwhile.
        """
        fetcher = self._consumer._fetcher
        arrived = fetcher._records.get(partition)
        rows: Sequence[Row]
        if bare.POSSIBLE and type(arrived) is FetchResult:
            rows = bare.take(arrived, most)
            if not arrived.has_more():
                # As getmany() does: the next request may ask for this partition again.
                del fetcher._records[partition]
                fetcher._notify(fetcher._wait_consume_future)
        else:
            rows = await self._by_getmany(partition, most)

        if partition not in fetcher._records:
            self._ahead.used_up(partition)

        return rows

    def ask_for_more(self) -> None:
        """To be called when enough was taken."""
        self._ahead.ask()

    async def _by_getmany(self, partition: KafkaPartition, most: int) -> list[Row]:
        slowly = self._slowly.pop(partition, 0)
        try:
            found = await self._consumer.getmany(partition, timeout_ms=0, max_records=1 if slowly else most)
        except CorruptRecordException:
            if slowly:
                raise

            # Whatever it had taken before the damage it has dropped, and the position has not moved. One by one
            # nothing is dropped.
            self._slowly[partition] = most
            self._consumer.seek(partition, self.position(partition))
            return []

        rows = rows_of(found.get(partition, ()))
        if slowly > len(rows):
            self._slowly[partition] = slowly - len(rows)

        return rows
