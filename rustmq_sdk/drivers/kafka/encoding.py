"""From messages to the batches of records that a broker stores. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

from rustmq_sdk.values import OutgoingMessage, Payloads

CODECS = {
    "none": DefaultRecordBatch.CODEC_NONE,
    "gzip": DefaultRecordBatch.CODEC_GZIP,
    "snappy": DefaultRecordBatch.CODEC_SNAPPY,
    "lz4": DefaultRecordBatch.CODEC_LZ4,
    "zstd": DefaultRecordBatch.CODEC_ZSTD,
}
_MAGIC = 2
_OVERHEAD = 21
"""Bytes of a record beside key, payload and headers, at most (``MAX_RECORD_OVERHEAD`` of Apache Kafka)."""
_HEADER_OVERHEAD = 10
_ANY_SIZE = 1 << 30  # messages are divided before
_NO_HEADERS: list[tuple[str, bytes | None]] = []


class Identity(NamedTuple):
    """What a broker knows a producer by."""

    producer_id: int
    epoch: int


NOBODY = Identity(-1, -1)
"""Whose batches are not recognised when they come again."""


class Answer(NamedTuple):
    """What a broker says of one batch: an error code, or where it is. ``timestamp`` is -1 if it keeps those given."""

    code: int
    base: int = -1
    timestamp: int = -1


def cut(messages: Sequence[OutgoingMessage], most: int) -> list[range]:
    """Divides messages into batches of at most ``most`` bytes; one that is larger gets a batch of its own.

    Always the same division of the same messages, whatever their timestamps: a repeated append has to be made of the
    same batches, or a broker does not recognise them.
    """
    if isinstance(messages, Payloads):
        sizes = [len(body or b"") + _OVERHEAD for body in messages.bodies]
    else:
        sizes = [_size(message) for message in messages]

    if sum(sizes) <= most:
        return [range(len(sizes))]

    parts = []
    first = filled = 0
    for index, size in enumerate(sizes):
        if filled and filled + size > most:
            parts.append(range(first, index))
            first, filled = index, 0

        filled += size

    return [*parts, range(first, len(sizes))]


def encode(messages: Sequence[OutgoingMessage], *, codec: int, now_ms: int, identity: Identity, sequence: int) -> bytes:
    """One batch of records.

    Args:
        messages: at least one.
        codec: of :data:`CODECS`.
        now_ms: the timestamp of messages that have none.
        identity: of the producer.
        sequence: the number of the first message; -1 for ``NOBODY``.

    Raises:
        ValueError, TypeError, OverflowError: a message is nothing that Kafka could store.
    """
    builder = DefaultRecordBatchBuilder(_MAGIC, codec, 0, identity.producer_id, identity.epoch, sequence, _ANY_SIZE)
    append = builder.append
    if isinstance(messages, Payloads):
        for index, body in enumerate(messages.bodies):
            append(index, now_ms, None, body, _NO_HEADERS)
    else:
        for index, (payload, key, headers, _, timestamp) in enumerate(messages):
            stamp = now_ms if timestamp is None else timestamp
            append(index, stamp, key, payload, list(headers) if headers else _NO_HEADERS)

    return bytes(builder.build())


def _size(message: OutgoingMessage) -> int:
    size = len(message.payload or b"") + len(message.key or b"") + _OVERHEAD
    for name, value in message.headers:
        size += len(name) * 4 + len(value or b"") + _HEADER_OVERHEAD  # a character has four bytes at most

    return size
