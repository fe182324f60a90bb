"""aiokafka's fetcher, between a cluster that answers as told and our polling."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.errors import OffsetOutOfRangeError, TopicAuthorizationFailedError
from aiokafka.protocol.fetch import FetchResponse_v4
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

from rustmq_sdk.drivers.kafka.gaps import Gaps
from rustmq_sdk.drivers.kafka.holdings import Holdings
from rustmq_sdk.drivers.kafka.polling import Polling
from rustmq_sdk.errors import TransientDriverError
from rustmq_sdk.slots import Fetched
from rustmq_sdk.values import Assignment
from rustmq_sdk.values import TopicPartition as Partition

T = TypeVar("T")

RECORDS = 10
"""In a batch."""
BODY = b"body"
CRC, ATTRIBUTES = 17, 21
"""Where these are in a batch; the checksum is of everything from the attributes on."""
CONTROL = 0x20
NAME, NO_NAME = b"name", b"\xff\xfe\xfd\xfc"
"""Of a header; brokers store the second, which is not UTF-8."""


def batch(first: int, *, damaged: bool = False, hidden: bool = False, poison: Collection[int] = ()) -> bytes:
    """Ten records from an offset on; those at the offsets ``poison`` cannot be decoded."""
    builder = DefaultRecordBatchBuilder(2, 0, False, -1, -1, -1, 1 << 16)
    for delta in range(RECORDS):
        builder.append(delta, 1000, None, BODY, [(NAME.decode(), b"")] if first + delta in poison else [])

    raw = bytearray(builder.build().replace(NAME, NO_NAME))
    raw[:8] = first.to_bytes(8, "big")
    if hidden:
        raw[ATTRIBUTES + 1] |= CONTROL

    raw[CRC:ATTRIBUTES] = calc_crc32c(raw[ATTRIBUTES:]).to_bytes(4, "big")
    raw[-1] ^= damaged
    return bytes(raw)


class Cluster:
    """As much of aiokafka's client as its fetcher asks: even partitions are at broker 0, odd ones at broker 1.

    Attributes:
        ends: of the partitions' logs; a request for none that has more is kept, as a broker would.
        stable: the same for who reads only what is committed.
        damaged: offsets of batches that fail their checksum.
        hidden: offsets of batches that are not for readers: markers of transactions.
        poison: offsets of records that cannot be decoded, by partition.
        lost: partitions whose log has nothing at the position.
        refused: partitions that we may not read.
        begin: the first offset of all logs.
        gate: requests wait before it.
        batches: in an answer, of each partition.
        asked: the partitions of each request, and those of that broker whose records waited meanwhile.
    """

    def __init__(self, ends: dict[int, int], stable: dict[int, int] | None = None) -> None:
        self.ends = ends
        self.stable = stable or ends
        self.damaged: set[int] = set()
        self.hidden: set[int] = set()
        self.poison: dict[int, set[int]] = {}
        self.lost: set[int] = set()
        self.refused: set[int] = set()
        self.begin = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.batches = 1
        self.asked: list[tuple[set[int], set[int]]] = []
        self.cluster = self
        self.fetcher: Any = None
        self._conns: dict[Any, Any] = {}
        self._loop = asyncio.get_running_loop()
        self._metadata_max_age_ms = 300_000

    def leader_for_partition(self, partition: TopicPartition) -> int:
        return int(partition.partition) % 2

    async def send(self, node: int, request: Any, *, group: int = 0) -> Any:
        wanted = {partition: offset for _, of_topic in request.topics for partition, offset, _ in of_topic}
        waiting = {one.partition for one in self.fetcher._records if one.partition % 2 == node}
        self.asked.append((set(wanted), waiting))
        await self.gate.wait()
        more = {
            partition: offset
            for partition, offset in wanted.items()
            if partition in self.lost | self.refused or offset != self.stable[partition]
        }
        if not more:
            await asyncio.Event().wait()

        return FetchResponse_v4(0, [("quakes", [self._answer(*one) for one in more.items()])])

    def _answer(self, partition: int, offset: int) -> tuple[Any, ...]:
        if partition in self.lost or not self.begin <= offset <= self.ends[partition]:
            return partition, OffsetOutOfRangeError.errno, -1, -1, [], b""

        if partition in self.refused:
            return partition, TopicAuthorizationFailedError.errno, -1, -1, [], b""

        start = offset - offset % RECORDS
        firsts = range(start, min(start + self.batches * RECORDS, self.ends[partition]), RECORDS)
        data = b"".join(
            batch(
                first, damaged=first in self.damaged, hidden=first in self.hidden, poison=self.poison.get(partition, ())
            )
            for first in firsts
        )
        return partition, 0, self.ends[partition], self.stable[partition], [], data


class Offsets:
    """Says where logs begin and end, once somebody lets it.

    Attributes:
        range: of each log.
        gate: questions wait before it.
        failures: of questions, first.
        failing: partitions that nothing can be said of.
    """

    def __init__(self) -> None:
        self.range = (0, 0)
        self.gate = asyncio.Event()
        self.gate.set()
        self.failures = 0
        self.failing: set[int] = set()

    async def start(self, partitions: Collection[Partition]) -> Mapping[Partition, int]:
        return await self.ask("start_offsets", self._all(partitions, self.range[0]))

    async def end(self, partitions: Collection[Partition]) -> Mapping[Partition, int]:
        return await self.ask("end_offsets", self._all(partitions, self.range[1]))

    async def ask(self, operation: str, question: Awaitable[T]) -> T:
        answer = await question
        await self.gate.wait()
        if self.failures:
            self.failures -= 1
            raise TransientDriverError("no answer", slot="source", operation=operation)

        return answer

    async def _all(self, partitions: Collection[Partition], offset: int) -> Mapping[Partition, int]:
        await self.gate.wait()
        if self.failing & {tp.partition for tp in partitions}:
            raise TransientDriverError("no answer", slot="source", operation="start_offsets")

        return dict.fromkeys(partitions, offset)


class NotingGaps(Gaps):
    """Notes where something could not be read.

    Attributes:
        noted: the positions.
        only_notes: called instead of doing anything about it; None to go on as any.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.noted: list[int] = []
        self.only_notes: Callable[[], None] | None = None

    def unreadable(
        self, assignment: Assignment, partition: TopicPartition, error: Exception, most: int, then: Callable[[], None]
    ) -> None:
        at = self._holdings.position(assignment)
        self.noted.append(at)
        if self.only_notes is not None:
            self._move(assignment, partition, at)
            self.only_notes()
        else:
            super().unreadable(assignment, partition, error, most, then)


class Setting:
    """A fetcher of aiokafka, and ours above it."""

    def __init__(self, cluster: Cluster, isolation: str) -> None:
        self.cluster = cluster
        self._partitions = [TopicPartition("quakes", number) for number in cluster.ends]
        self._subscription = SubscriptionState()
        self._subscription.assign_from_user(self._partitions)
        for partition in self._partitions:
            self._subscription.seek(partition, 0)

        self._fetcher = cluster.fetcher = Fetcher(
            cluster, self._subscription, isolation_level=isolation, prefetch_backoff=60.0, auto_offset_reset="none"
        )
        self.held = [Assignment(Partition("quakes", number), 1) for number in cluster.ends]
        holdings = Holdings()
        holdings.take(dict.fromkeys(self.held, 0), 1)
        self._client = cluster
        self.holdings = holdings
        self.offsets = Offsets()
        self.gaps = NotingGaps(self, holdings, self.offsets)
        consumer: Any = self
        self._polling = Polling(consumer, holdings, check=lambda: None, gaps=self.gaps)
        self.gaps.only_notes = self._polling.wake

    @property
    def corrupt(self) -> list[int]:
        """Where something could not be read."""
        return self.gaps.noted

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._fetcher.seek_to(partition, offset)

    async def getmany(self, partition: TopicPartition, *, timeout_ms: int, max_records: int) -> Any:
        return await self._fetcher.fetched_records([partition], timeout_ms, max_records)

    async def take(self, number: int, most: int = 2 * RECORDS, most_bytes: int = 1 << 20) -> list[int]:
        """Offsets of what comes of one partition, and what that causes."""
        wanted = self.held[list(self.cluster.ends).index(number)]
        pieces: Any = await self._polling.fetch([wanted], max_messages=most, max_bytes=most_bytes, max_wait=5.0)
        for _ in range(20):
            await asyncio.sleep(0)

        return [offset for piece in pieces for offset in piece.offsets]

    async def take_of_all(self, most_bytes: int) -> list[list[int]]:
        """Offsets of what comes of each partition that has something."""
        pieces = await self._polling.fetch(self.held, max_messages=1000, max_bytes=most_bytes, max_wait=5.0)
        return [list(piece.offsets) for piece in pieces]

    async def look(self, most: int = 1000, wait: float = 0.0) -> dict[int, Fetched]:
        """What one fetch brings of all partitions, by their number, when all that can go on has gone on."""
        for _ in range(50):
            await asyncio.sleep(0)

        pieces = await self._polling.fetch(self.held, max_messages=most, max_bytes=1 << 20, max_wait=wait)
        return {int(piece.assignment.tp.partition or 0): piece for piece in pieces}

    async def close(self) -> None:
        await self.gaps.close()
        await self._fetcher.close()


@asynccontextmanager
async def setting(
    ends: dict[int, int], stable: dict[int, int] | None = None, isolation: str = "read_uncommitted"
) -> AsyncIterator[Setting]:
    it = Setting(Cluster(ends, stable), isolation)
    try:
        yield it
    finally:
        await it.close()
