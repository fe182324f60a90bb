"""Reading single offsets again, by a second consumer, made on first use: the first one's position stays."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from operator import itemgetter

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from rustmq_sdk.drivers.kafka.failures import translate
from rustmq_sdk.drivers.kafka.leaving import leave
from rustmq_sdk.drivers.kafka.quieting import said_by_us
from rustmq_sdk.drivers.kafka.records import OFFSET, Row, build, rows_of, sizes_of
from rustmq_sdk.drivers.kafka.salvage import CORRUPT_READS, UNREADABLE, Salvaged, salvage
from rustmq_sdk.errors import TransientDriverError
from rustmq_sdk.slots import Fetched
from rustmq_sdk.values import Assignment, Broken, Gone

FAR = 500
"""Offsets between two wanted ones from which on it is cheaper to seek than to read on."""
PATIENCE = 0.5
"""Seconds of one look."""


class Rereading:
    """Reads what was delivered before.

    Args:
        make: a consumer without a group.
        deadline: seconds that one call may take.
    """

    def __init__(self, make: Callable[[], AIOKafkaConsumer], *, deadline: float) -> None:
        self._make = make
        self._deadline = deadline
        self._consumer: AIOKafkaConsumer | None = None
        self._turn = asyncio.Lock()

    async def read(self, assignment: Assignment, offsets: Sequence[int]) -> Fetched:
        """As :meth:`rustmq_sdk.slots.LogSubscription.read`."""
        async with self._turn:
            try:
                async with asyncio.timeout(self._deadline):
                    return await self._read(assignment, offsets)
            except TimeoutError as error:
                await self.close()
                raise TransientDriverError(
                    f"{assignment.tp}: no answer within {self._deadline:g} s", slot="source", operation="read"
                ) from error
            except KafkaError as error:
                await self.close()
                raise translate(error, slot="source", operation="read") from error
            except asyncio.CancelledError:
                # A fetch that was cancelled counts as under way for ever.
                self._abandon()
                raise

    async def close(self) -> None:
        """Ends the second consumer, if there is one."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await leave(consumer, static=True)

    def _abandon(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            self._closing = asyncio.ensure_future(leave(consumer, static=True))

    async def _read(self, assignment: Assignment, offsets: Sequence[int]) -> Fetched:
        partition = KafkaPartition(*assignment.tp)
        consumer = await self._connected()
        with said_by_us():
            consumer.assign([partition])

        search = _Search(assignment, list(offsets))
        consumer.seek(partition, offsets[0])
        while search.wanted:
            await self._look(consumer, partition, search)

        return search.fetched(offsets)

    async def _look(self, consumer: AIOKafkaConsumer, partition: KafkaPartition, search: _Search) -> None:
        most = search.wanted[-1] - search.wanted[0] + 1
        try:
            found = await consumer.getmany(partition, timeout_ms=int(PATIENCE * 1000), max_records=most)
        except OffsetOutOfRangeError:
            start = (await consumer.beginning_offsets([partition]))[partition]
            end = (await consumer.end_offsets([partition]))[partition]
            search.outside(start, end)
            if search.wanted:
                consumer.seek(partition, search.wanted[0])

            return
        except UNREADABLE as error:
            await self._salvage(consumer, partition, search, error)
            return

        search.take(rows_of(found.get(partition, ())), position := await consumer.position(partition))
        if search.wanted and search.wanted[0] > position + FAR:
            consumer.seek(partition, search.wanted[0])

    async def _salvage(
        self, consumer: AIOKafkaConsumer, partition: KafkaPartition, search: _Search, error: Exception
    ) -> None:
        at = search.wanted[0]
        found = Salvaged((), [Broken(at, b"", error)], at + 1)
        for _ in range(CORRUPT_READS):
            try:
                found = await salvage(consumer, partition, at, search.wanted[-1] - at + 1)
                break
            except OffsetOutOfRangeError:
                consumer.seek(partition, at)  # since: the next look finds out
                return
            except UNREADABLE:
                continue

        search.take(found.rows, found.next_offset, found.broken)
        if search.wanted:
            # aiokafka forgets what it has fetched, and could not go on with.
            consumer.seek(partition, search.wanted[0])

    async def _connected(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            consumer = self._make()
            try:
                await consumer.start()
            except BaseException:
                await leave(consumer, static=True)
                raise

            self._consumer = consumer

        return self._consumer


class _Search:
    """What was asked for and is not found yet. Pure."""

    def __init__(self, assignment: Assignment, offsets: list[int]) -> None:
        self.wanted = offsets
        self._assignment = assignment
        self._found: list[Row] = []
        self._broken: list[Broken] = []
        self._gone: list[Gone] = []

    def take(self, rows: Sequence[Row], position: int, broken: Sequence[Broken] = ()) -> None:
        """These came, and everything below ``position`` was looked at."""
        asked = set(self.wanted)
        self._found += [row for row in rows if row[OFFSET] in asked]
        self._broken += [one for one in broken if one.offset in asked]
        present = {row[OFFSET] for row in rows} | {one.offset for one in broken}
        self._miss([offset for offset in self.wanted if offset < position and offset not in present], "compacted")
        self.wanted = [offset for offset in self.wanted if offset >= position]

    def outside(self, start: int, end: int) -> None:
        """The log has only these."""
        self._miss([offset for offset in self.wanted if offset < start], "retention")
        self._miss([offset for offset in self.wanted if offset >= end], "beyond the end of the log")
        self.wanted = [offset for offset in self.wanted if start <= offset < end]

    def _miss(self, offsets: Sequence[int], reason: str) -> None:
        self._gone += [Gone(self._assignment.tp, offset, offset + 1, reason) for offset in offsets]

    def fetched(self, asked: Sequence[int]) -> Fetched:
        rows = sorted(self._found, key=itemgetter(OFFSET))
        sizes = sizes_of(rows)
        return Fetched(
            self._assignment,
            [row[OFFSET] for row in rows],
            rows,
            build,
            asked[-1] + 1,
            sum(sizes),
            max(sizes, default=0),
            broken=self._broken,
            gone=self._gone,
        )
