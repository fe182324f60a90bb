"""From messages to blobs: checked and turned into columns once, joined with others, cut into rows, encoded."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, repeat
from typing import NamedTuple, TypeVar

import msgspec

from rustmq_sdk.values import Headers, OutgoingMessage, Payloads, size_of

T = TypeVar("T")

ROW_MESSAGES = 5000
ROW_BYTES = 1024 * 1024
"""Bounds of one row; a larger message has a row of its own. A reader decodes whole rows and keeps at most one in part
for each partition, so these bound its memory as well."""

_BODIES = {bytes, type(None)}
_encoder = msgspec.msgpack.Encoder()


class Packed(NamedTuple):
    """Messages as columns. None instead of one stands for nothing but None, respectively ``()``.

    Attributes:
        size: bytes of all payloads, keys and headers.
        largest: bytes of the largest payload and the largest key together.
    """

    payloads: Sequence[bytes | None]
    keys: Sequence[bytes | None] | None
    headers: Sequence[Headers] | None
    timestamps: Sequence[int | None] | None
    size: int
    largest: int

    @property
    def length(self) -> int:
        """How many messages."""
        return len(self.payloads)


class Encoded(NamedTuple):
    """A batch ready to be stored; the attributes are named as the columns of its row.

    Attributes:
        length: how many messages.
        first_ms, last_ms: the lowest and the highest timestamp.
    """

    length: int
    first_ms: int
    last_ms: int
    largest: int
    crc: int
    data: bytes


def pack(messages: Sequence[OutgoingMessage]) -> Packed:
    """Turns at least one message into columns, and refuses what could be stored and then be read by nobody.

    Raises:
        TypeError: a payload, key or header is not what :class:`OutgoingMessage` says.
        ValueError: a timestamp does not fit into 64 bits.
    """
    if isinstance(messages, Payloads):
        return _pack(messages.bodies, None, None, None)

    payloads, keys, headers, _, timestamps = zip(*messages, strict=True)
    length = len(payloads)
    if not _BODIES.issuperset(map(type, payloads)) or not _BODIES.issuperset(map(type, keys)):
        raise TypeError("payload and key must be bytes or None: encode text as UTF-8, other values for example as JSON")

    return _pack(
        payloads,
        None if keys.count(None) == length else keys,
        headers if any(headers) else None,
        None if timestamps.count(None) == length else timestamps,
    )


def _pack(
    payloads: Sequence[bytes | None],
    keys: Sequence[bytes | None] | None,
    headers: Sequence[Headers] | None,
    timestamps: Sequence[int | None] | None,
) -> Packed:
    for stamp in timestamps or ():
        if stamp is not None and (type(stamp) is not int or not -(2**63) <= stamp < 2**63):
            raise ValueError(f"a timestamp must be a whole number of milliseconds since the epoch, not {stamp!r}")

    sizes = list(map(len, filter(None, payloads)))
    key_sizes = list(map(len, filter(None, keys or ())))
    largest = max(sizes, default=0) + max(key_sizes, default=0)
    size = sum(sizes) + sum(key_sizes) + _size_of_headers(headers or ())
    return Packed(payloads, keys, headers, timestamps, size, largest)


def joined(parts: Sequence[Packed]) -> Packed:
    """Parts one after the other, as one."""
    if len(parts) == 1:
        return parts[0]

    return Packed(
        list(chain.from_iterable(part.payloads for part in parts)),
        _column([part.keys for part in parts], parts, None),
        _column([part.headers for part in parts], parts, ()),
        _column([part.timestamps for part in parts], parts, None),
        sum(part.size for part in parts),
        max(part.largest for part in parts),
    )


def rows_of(packed: Packed) -> Iterator[Packed]:
    """The messages in rows of bounded size."""
    if packed.length <= ROW_MESSAGES and packed.size <= ROW_BYTES:
        yield packed
        return

    start = size = 0
    for at, more in enumerate(_sizes(packed)):
        if at > start and (size + more > ROW_BYTES or at - start == ROW_MESSAGES):
            yield _cut(packed, start, at)
            start, size = at, 0

        size += more

    yield _cut(packed, start, packed.length)


def encode(packed: Packed, now_ms: int) -> Encoded:
    """Encodes one row; messages without a timestamp get ``now_ms``."""
    times: Sequence[int] | int = now_ms
    first_ms = last_ms = now_ms
    if packed.timestamps is not None:
        times = [now_ms if stamp is None else stamp for stamp in packed.timestamps]
        first_ms, last_ms = min(times), max(times)

    data = _encoder.encode((packed.payloads, packed.keys, packed.headers, times))
    return Encoded(packed.length, first_ms, last_ms, packed.largest, zlib.crc32(data), data)


def _size_of_headers(headers: Iterable[Headers]) -> int:
    size = 0
    for name, value in chain.from_iterable(headers):
        if type(name) is not str or type(value) not in _BODIES:
            raise TypeError(f"a header must be a str and bytes or None, not {name!r} and {value!r}")

        size += len(name) + len(value or b"")

    return size


def _column(columns: Sequence[Sequence[T] | None], parts: Sequence[Packed], nothing: T) -> list[T] | None:
    if columns.count(None) == len(columns):
        return None

    pairs = zip(columns, parts, strict=True)
    return list(chain.from_iterable(repeat(nothing, part.length) if each is None else each for each, part in pairs))


def _cut(packed: Packed, start: int, end: int) -> Packed:
    part = slice(start, end)
    return packed._replace(
        payloads=packed.payloads[part],
        keys=None if packed.keys is None else packed.keys[part],
        headers=None if packed.headers is None else packed.headers[part],
        timestamps=None if packed.timestamps is None else packed.timestamps[part],
    )


def _sizes(packed: Packed) -> Iterator[int]:
    keys: Iterable[bytes | None] = repeat(None) if packed.keys is None else packed.keys
    headers: Iterable[Headers] = repeat(()) if packed.headers is None else packed.headers
    return map(size_of, packed.payloads, keys, headers)
