"""aiokafka's fetcher, between a cluster that answers as told and our polling."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.protocol.fetch import FetchResponse_v4
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

from rustmq_sdk.drivers.kafka.holdings import Holdings
from rustmq_sdk.drivers.kafka.polling import Polling
from rustmq_sdk.drivers.kafka.records import piece_of
from rustmq_sdk.slots import Fetched
from rustmq_sdk.values import Assignment
from rustmq_sdk.values import TopicPartition as Partition

RECORDS = 10
"""In a batch."""
BODY = b"body"
CRC, ATTRIBUTES = 17, 21
"""Where these are in a batch; the checksum is of everything from the attributes on."""
CONTROL = 0x20


def batch(first: int, *, damaged: bool = False, hidden: bool = False) -> bytes:
    builder = DefaultRecordBatchBuilder(2, 0, False, -1, -1, -1, 1 << 16)
    for delta in range(RECORDS):
        builder.append(delta, 1000, None, BODY, [])

    raw = bytearray(builder.build())
    raw[:8] = first.to_bytes(8, "big")
    raw[-1] ^= damaged
    if hidden:
        raw[ATTRIBUTES + 1] |= CONTROL
        raw[CRC:ATTRIBUTES] = calc_crc32c(raw[ATTRIBUTES:]).to_bytes(4, "big")

    return bytes(raw)


class Cluster:
    """As much of aiokafka's client as its fetcher asks: even partitions are at broker 0, odd ones at broker 1.

    Attributes:
        ends: of the partitions' logs; a request for none that has more is kept, as a broker would.
        stable: the same for who reads only what is committed.
        damaged: offsets of batches that fail their checksum.
        hidden: offsets of batches that are not for readers: markers of transactions.
        gate: requests wait before it.
        batches: in an answer, of each partition.
        asked: the partitions of each request, and those of that broker whose records waited meanwhile.
    """

    def __init__(self, ends: dict[int, int], stable: dict[int, int] | None = None) -> None:
        self.ends = ends
        self.stable = stable or ends
        self.damaged: set[int] = set()
        self.hidden: set[int] = set()
        self.gate = asyncio.Event()
        self.gate.set()
        self.batches = 1
        self.asked: list[tuple[set[int], set[int]]] = []
        self.cluster = self
        self.fetcher: Any = None
        self._loop = asyncio.get_running_loop()
        self._metadata_max_age_ms = 300_000

    def leader_for_partition(self, partition: TopicPartition) -> int:
        return int(partition.partition) % 2

    async def send(self, node: int, request: Any) -> Any:
        wanted = {partition: offset for _, of_topic in request.topics for partition, offset, _ in of_topic}
        waiting = {one.partition for one in self.fetcher._records if one.partition % 2 == node}
        self.asked.append((set(wanted), waiting))
        await self.gate.wait()
        more = {partition: offset for partition, offset in wanted.items() if offset < self.stable[partition]}
        if not more:
            await asyncio.Event().wait()

        return FetchResponse_v4(0, [("quakes", [self._answer(*one) for one in more.items()])])

    def _answer(self, partition: int, offset: int) -> tuple[Any, ...]:
        start = offset - offset % RECORDS
        firsts = range(start, min(start + self.batches * RECORDS, self.ends[partition]), RECORDS)
        data = b"".join(batch(first, damaged=first in self.damaged, hidden=first in self.hidden) for first in firsts)
        return partition, 0, self.ends[partition], self.stable[partition], [], data


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
            cluster, self._subscription, isolation_level=isolation, prefetch_backoff=60.0
        )
        self._held = [Assignment(Partition("quakes", number), 1) for number in cluster.ends]
        holdings = Holdings()
        holdings.take(dict.fromkeys(self._held, 0), 1)
        self.corrupt: list[int] = []
        self._holdings = holdings
        self._polling = Polling(
            self,
            holdings,
            check=lambda: None,
            on_out_of_range=_never,
            on_corrupt=self._on_corrupt,
        )

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._fetcher.seek_to(partition, offset)

    async def getmany(self, partition: TopicPartition, *, timeout_ms: int, max_records: int) -> Any:
        return await self._fetcher.fetched_records([partition], timeout_ms, max_records)

    async def take(self, number: int, most: int = 2 * RECORDS, most_bytes: int = 1 << 20) -> list[int]:
        """Offsets of what comes of one partition, and what that causes."""
        wanted = self._held[list(self.cluster.ends).index(number)]
        pieces: Any = await self._polling.fetch([wanted], max_messages=most, max_bytes=most_bytes, max_wait=5.0)
        for _ in range(20):
            await asyncio.sleep(0)

        return [offset for piece in pieces for offset in piece.offsets]

    async def take_of_all(self, most_bytes: int) -> list[list[int]]:
        """Offsets of what comes of each partition that has something."""
        pieces = await self._polling.fetch(self._held, max_messages=1000, max_bytes=most_bytes, max_wait=5.0)
        return [list(piece.offsets) for piece in pieces]

    def _on_corrupt(self, assignment: Assignment, partition: TopicPartition, _: Exception) -> Fetched:
        """Has it read again, and notes where that was."""
        at = self._holdings.position(assignment)
        self.corrupt.append(at)
        self.seek(partition, at)
        return piece_of(assignment, (), at)

    async def close(self) -> None:
        await self._fetcher.close()


async def _never(*_: Any) -> Fetched | None:
    raise AssertionError("nothing is wrong with the log")


@asynccontextmanager
async def setting(
    ends: dict[int, int], stable: dict[int, int] | None = None, isolation: str = "read_uncommitted"
) -> AsyncIterator[Setting]:
    it = Setting(Cluster(ends, stable), isolation)
    try:
        yield it
    finally:
        await it.close()
