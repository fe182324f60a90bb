"""Taking what aiokafka has fetched of a partition: by the batch where its release is known, else by ``getmany()``.

Either way nothing suspends outside a reassignment, and what comes before a damaged batch comes.
"""

from __future__ import annotations

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.consumer.fetcher import FetchResult

from rustmq_sdk.drivers.kafka import bare
from rustmq_sdk.drivers.kafka.reading_ahead import ReadingAhead
from rustmq_sdk.drivers.kafka.records import Room, Row, Taken, rows_of, sizes_of
from rustmq_sdk.drivers.kafka.salvage import UNREADABLE


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

    async def take(self, partition: KafkaPartition, room: Room, *, at_least_one: bool) -> Taken:
        """What there is room for, if it has any; the position moves beyond it.

        Args:
            partition: of which.
            room: records and bytes. Without :mod:`bare` the bytes are an aim only, if sizes differ.
            at_least_one: also if it is larger than the room.

        Raises:
            Exception: one of ``UNREADABLE``: the batch at the position cannot be read.
            KafkaError: what a request has met meanwhile.
        """
        fetcher = self._consumer._fetcher
        arrived = fetcher._records.get(partition)
        if bare.POSSIBLE and type(arrived) is FetchResult:
            try:
                taken = bare.take(arrived, room, at_least_one=at_least_one)
            finally:
                if not arrived.has_more():
                    # As getmany() does: the next request may ask for this partition again.
                    del fetcher._records[partition]
                    fetcher._notify(fetcher._wait_consume_future)
        else:
            taken = await self._by_getmany(partition, room)

        if partition not in fetcher._records:
            self._ahead.used_up(partition)

        return taken

    def ask_for_more(self) -> None:
        """To be called when enough was taken."""
        self._ahead.ask()

    async def _by_getmany(self, partition: KafkaPartition, room: Room) -> Taken:
        """A record's size is known when it was taken: so first one, then as many as there is room for of its like."""
        most, most_bytes = room
        rows: list[Row] = []
        sizes: list[int] = []
        count = 1
        while count > 0:
            slowly = partition in self._slowly
            try:
                more = await self._some(partition, 1 if slowly else count, most)
            except Exception:
                if not rows:
                    raise

                break  # what was taken comes first, and this is met again
            rows += more
            sizes += sizes_of(more)
            if not more or slowly:
                break

            count = min(most - len(rows), (most_bytes - sum(sizes)) // max(1, *sizes))

        return rows, sizes

    async def _some(self, partition: KafkaPartition, count: int, most: int) -> list[Row]:
        slowly = self._slowly.pop(partition, 0)
        try:
            found = await self._consumer.getmany(partition, timeout_ms=0, max_records=count)
        except UNREADABLE:
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
