"""Reading a batch in which a record cannot be decoded, record by record.

aiokafka decodes a batch from its beginning and stops at such a record, however often and from wherever it is read: a
header whose name is not UTF-8 is enough, and brokers store it. So the batch is fetched once more, and what surrounds
the record is read by aiokafka's own code for transactions, markers and compacted logs, with a batch that goes on after
what it cannot read.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.consumer.fetcher import PartitionRecords
from aiokafka.errors import CorruptRecordException, LeaderNotAvailableError, NoError
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.util import decode_varint

from rustmq_sdk.drivers.kafka.aside import ASIDE
from rustmq_sdk.drivers.kafka.failures import broker_error
from rustmq_sdk.drivers.kafka.records import OFFSET, Row, rows_of
from rustmq_sdk.values import Broken

try:
    from cramjam import DecompressionError

    _OF_CODECS: tuple[type[Exception], ...] = (DecompressionError,)
except ImportError:
    _OF_CODECS = ()

UNREADABLE: tuple[type[Exception], ...] = (
    CorruptRecordException,
    ValueError,  # a UnicodeDecodeError among them
    IndexError,
    struct.error,
    EOFError,
    gzip.BadGzipFile,
    zlib.error,
    *_OF_CODECS,
)
"""What is raised where stored bytes are no records. A codec that is not installed is not among it."""
CORRUPT_READS = 3
"""A batch that fails its checksum is fetched so often, perhaps from another replica, before it is given up."""
_LENGTH = struct.Struct(">8xi")
_BEFORE_LENGTH = 12
_MAGIC_AT, _MAGIC = 16, 2
_NAMES_REPLICAS = 11
"""The version from which on a response names the replica to read from, between the transactions and the records."""


class Salvaged(NamedTuple):
    """What there is from an offset on: everything below ``next_offset`` was looked at."""

    rows: Sequence[Row]
    broken: Sequence[Broken]
    next_offset: int

    def at_most(self, most: int) -> Salvaged:
        """The first of it."""
        if len(self.rows) <= most:
            return self

        end = self.rows[most][OFFSET]
        return Salvaged(self.rows[:most], [one for one in self.broken if one.offset < end], end)


async def salvage(consumer: AIOKafkaConsumer, partition: KafkaPartition, at: int, most: int) -> Salvaged:
    """Fetches the batch at an offset, and reads it to its end or until there are ``most`` records.

    Raises:
        KafkaError: the broker does not say; a ``CorruptRecordException`` where the batch fails its checksum.
        Exception: one of ``UNREADABLE``: nothing of it can be read from the offset on.
    """
    fetcher = consumer._fetcher
    node = fetcher._select_read_replica(partition)
    if node is None or node == -1:
        raise LeaderNotAvailableError(partition)

    # A broker sends at least one batch, however little is asked for.
    topics = [(partition.topic, [(partition.partition, at, 1)])]
    request = FetchRequest(fetcher._fetch_max_wait_ms, 1, 1, fetcher._isolation_level, topics)
    response = await consumer._client.send(node, request, group=ASIDE)
    ((_, ((_, code, _, *about),)),) = response.topics
    if code != NoError.errno:
        raise broker_error(code, str(partition))

    # Beyond the last stable offset, and with later versions the first one.
    aborted = about[2] if response.API_VERSION >= _NAMES_REPLICAS else about[-2]
    return read(partition, about[-1], at, most, aborted=aborted, isolation=fetcher._isolation_level)


def read(partition: KafkaPartition, data: bytes, at: int, most: int, *, aborted: Any, isolation: int) -> Salvaged:
    """What :func:`salvage` does with what a broker sent."""
    batches = _Batches(data)
    source = PartitionRecords(partition, batches, aborted, at, None, None, True, isolation)
    records: list[Any] = []
    passed = at
    try:
        for record in source:
            records.append(record)
            if len(records) >= most:
                break
    except UNREADABLE:
        # What is before it comes first, and it is met again.
        passed = max((one.offset + 1 for one in batches.broken), default=at)
        if not records and passed <= at:
            raise

    broken = [one for one in batches.broken if one.offset >= at]
    return Salvaged(rows_of(records), broken, max(passed, source.next_fetch_offset))


class _Batches:
    """As much of aiokafka's ``MemoryRecords`` as its ``PartitionRecords`` asks."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.broken: list[Broken] = []

    def has_next(self) -> bool:
        return len(self._data) > _MAGIC_AT and len(self._data) >= self._size()

    def next_batch(self) -> _Batch:
        size = self._size()
        first, self._data = self._data[:size], self._data[size:]
        if first[_MAGIC_AT] != _MAGIC:
            raise CorruptRecordException(f"a batch of the format {first[_MAGIC_AT]}, which is older than Kafka 0.11")

        return _Batch(first, self.broken)

    def _size(self) -> int:
        return _BEFORE_LENGTH + int(_LENGTH.unpack_from(self._data)[0])


class _Batch(_DefaultRecordBatchPy):  # type: ignore[misc]  # aiokafka has no types for us to see
    """Goes on after a record that it cannot decode, and remembers it."""

    def __init__(self, data: bytes, broken: list[Broken]) -> None:
        super().__init__(data)
        self._broken = broken

    def __next__(self) -> Any:
        while self._next_record_index < self._num_records:
            self._next_record_index += 1
            first = self._pos
            try:
                return self._read_msg()
            except UNREADABLE as error:
                self._pass(first, error)

        raise StopIteration

    def _pass(self, first: int, error: Exception) -> None:
        length, start = decode_varint(self._buffer, first)
        end = start + length
        if not start < end <= len(self._buffer):
            raise CorruptRecordException(
                f"a record of {length} bytes, with {len(self._buffer) - start} left"
            ) from error

        at = start
        for _ in ("attributes", "timestamp", "offset"):
            delta, at = decode_varint(self._buffer, at)

        self._broken.append(Broken(self.base_offset + delta, bytes(self._buffer[start:end]), error))
        self._pos = end
