"""One append batch as one blob: the columns of its messages in MessagePack.

Columns rather than rows: 500 messages of 100 bytes are decoded in 35 to 70 ns each (rows: 115) and built in 90, because
``map`` walks the columns without a line of Python a message.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from itertools import count, repeat
from typing import Any, NamedTuple, overload

import msgspec

from rustmq_sdk.message import AnyPiece, Message
from rustmq_sdk.values import Headers, size_of


class Record(NamedTuple):
    """One message as it lies in the log."""

    payload: bytes | None
    key: bytes | None
    headers: Headers
    offset: int
    timestamp: int


class Records(Sequence[Record]):
    """Messages with consecutive offsets, as columns. A slice of it is one, too."""

    __slots__ = ("base", "headers", "keys", "payloads", "timestamps")

    def __init__(
        self,
        base: int,
        payloads: list[bytes | None],
        keys: list[bytes | None],
        headers: list[Headers],
        timestamps: list[int],
    ) -> None:
        self.base = base
        self.payloads = payloads
        self.keys = keys
        self.headers = headers
        self.timestamps = timestamps

    @property
    def offsets(self) -> range:
        """Of the records."""
        return range(self.base, self.base + len(self.payloads))

    def __len__(self) -> int:
        return len(self.payloads)

    @overload
    def __getitem__(self, at: int) -> Record: ...

    @overload
    def __getitem__(self, at: slice) -> Sequence[Record]: ...

    def __getitem__(self, at: int | slice) -> Record | Sequence[Record]:
        if isinstance(at, slice):
            chosen = range(len(self))[at]
            if chosen.step == 1:
                return self.cut(chosen.start, chosen.stop)

            return [self[i] for i in chosen]

        offset = self.offsets[at]
        return Record(self.payloads[at], self.keys[at], self.headers[at], offset, self.timestamps[at])

    def cut(self, start: int, stop: int) -> Records:
        """The records from ``start`` to ``stop``, both counted from the first."""
        part = slice(start, stop)
        return Records(
            self.base + start, self.payloads[part], self.keys[part], self.headers[part], self.timestamps[part]
        )

    def size(self) -> int:
        """Bytes of all payloads, keys and headers."""
        headers = self.headers if any(self.headers) else ()
        return _bytes(self.payloads) + _bytes(self.keys) + sum(size_of(None, None, each) for each in headers)

    def sizes(self) -> list[int]:
        """Bytes of each record's payload, key and headers."""
        return [size_of(*each) for each in zip(self.payloads, self.keys, self.headers, strict=True)]


def joined(parts: Sequence[Records]) -> Records:
    """Parts that follow one another without a gap, as one."""
    if len(parts) == 1:
        return parts[0]

    whole = Records(parts[0].base, [], [], [], [])
    for part in parts:
        whole.payloads += part.payloads
        whole.keys += part.keys
        whole.headers += part.headers
        whole.timestamps += part.timestamps

    return whole


def build(records: Sequence[Any], piece: AnyPiece, first: int) -> list[Message]:
    """Fills :data:`rustmq_sdk.slots.Build`."""
    if isinstance(records, Records):
        columns = (records.payloads, records.keys, records.headers, records.offsets, records.timestamps)
        return list(map(Message, *columns, repeat(piece), count(first)))

    return [
        Message(payload, key, headers, offset, timestamp, piece, index)
        for index, (payload, key, headers, offset, timestamp) in enumerate(records, first)
    ]


class DamagedBatch(Exception):
    """A blob that is not what ``packing`` made."""


class _Columns(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    # None instead of a column stands for a column of nothing but None, respectively (); one number for equal times.
    payloads: list[bytes | None]
    keys: list[bytes | None] | None
    headers: list[tuple[tuple[str, bytes | None], ...]] | None
    timestamps: list[int] | int


_decoder = msgspec.msgpack.Decoder(_Columns)


def _bytes(bodies: Iterable[bytes | None]) -> int:
    return sum(map(len, filter(None, bodies)))


def decode(base: int, expected: int, data: bytes | memoryview, crc: int | None) -> Records:
    """Unpacks a batch of ``expected`` messages whose first offset is ``base``; ``crc=None`` does not verify it.

    Raises:
        DamagedBatch: the checksum is wrong, or the blob is not a batch of that many messages.
    """
    if crc is not None and zlib.crc32(data) != crc:
        raise DamagedBatch(f"the checksum of the batch at offset {base} is wrong: the file was damaged")

    try:
        columns = _decoder.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise DamagedBatch(f"the batch at offset {base} cannot be decoded: {error}") from error

    nothing: list[bytes | None] = [None] * expected
    none: list[Headers] = [()] * expected
    keys = nothing if columns.keys is None else columns.keys
    headers: list[Any] = none if columns.headers is None else columns.headers
    times = [columns.timestamps] * expected if isinstance(columns.timestamps, int) else columns.timestamps
    lengths = {len(columns.payloads), len(keys), len(headers), len(times)}
    if lengths != {expected}:
        raise DamagedBatch(
            f"the batch at offset {base} has columns of {sorted(lengths)} instead of {expected} messages"
        )

    return Records(base, columns.payloads, keys, headers, times)
