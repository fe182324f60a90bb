"""What is settled above a watermark, written as short as possible, in one of two ways.

A settled run is ``[first, end)``. The offsets at which runs begin and end, in turn, are all there is to know; they are
called edges here. Both ways write a prefix of the runs when there is no room for all.
"""

from __future__ import annotations

import re
import zlib
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, chain, islice
from operator import lt, sub
from typing import TypeAlias

from rustmq_sdk._core import varint

Runs: TypeAlias = list[tuple[int, int]]
"""Ascending, disjoint ``[first, end)`` runs of offsets."""

MAX_SPAN = 1 << 21
"""Offsets a bitset spans at most: 20 times the default ``max_span``, and 256 KiB for whoever has to inflate it."""
MAX_OFFSET = 1 << 63
"""Offsets are below this in every log there is."""

_SETTLED = re.compile(rb"1+")


def edges_of(watermark: int, runs: Sequence[tuple[int, int]]) -> list[int]:
    """The edges of the runs.

    Raises:
        ValueError: they are not above the watermark, ascending and apart. Written down, they would lose messages.
    """
    edges = list(chain.from_iterable(runs))
    if not all(map(lt, chain((watermark,), edges), edges)) or (edges and edges[-1] > MAX_OFFSET):
        raise ValueError(
            f"expected settled runs [first, end) above watermark {watermark}, ascending and apart from each other, "
            f"got {list(runs[:10])}"
        )

    return edges


def write_steps(watermark: int, edges: list[int], room: int) -> tuple[bytes, int]:
    """Varints of the pause before each run and its length; and the offset up to which runs are included."""
    steps = list(map(sub, edges, chain((watermark,), edges)))
    body, count = varint.write(steps, 2, room)
    return body, edges[count - 1] if count else watermark


def read_steps(watermark: int, body: bytes) -> Runs:
    """Raises ``ValueError`` for what :func:`write_steps` cannot have written."""
    steps = varint.read_all(body)
    if len(steps) % 2 or not all(steps):
        raise ValueError("expected pauses and lengths of settled runs in turn, all above 0")

    edges = list(islice(accumulate(steps, initial=watermark), 1, None))
    if edges and edges[-1] > MAX_OFFSET:
        raise ValueError(f"a settled run ends at {edges[-1]}, beyond any offset")

    return list(zip(edges[::2], edges[1::2], strict=True))


def write_bits(watermark: int, edges: list[int], room: int) -> tuple[bytes, int]:
    """A deflated bitset, bit i for offset watermark + i; and the offset up to which runs are included."""
    edges = edges[: bisect_right(edges, watermark + MAX_SPAN) & ~1]
    bits = _bitset(watermark, edges)
    body, fits, too_many = b"", 0, len(edges) // 2 + 1
    count = len(edges) // 2
    while count > fits:
        attempt = _deflate(_first_bits(bits, edges[2 * count - 1] - watermark))
        if len(attempt) <= room:
            body, fits = attempt, count
        else:
            too_many = count

        count = (fits + too_many) // 2

    return body, edges[2 * fits - 1] if fits else watermark


def read_bits(watermark: int, body: bytes) -> Runs:
    """Raises ``ValueError`` for what :func:`write_bits` cannot have written; inflates no more than it may have."""
    inflater = zlib.decompressobj(wbits=-15)
    try:
        bits = inflater.decompress(body, MAX_SPAN // 8 + 1)
    except zlib.error as error:
        raise ValueError(f"the bitset of settled offsets cannot be inflated: {error}") from error

    if not inflater.eof or inflater.unused_data or len(bits) > MAX_SPAN // 8:
        raise ValueError(f"the bitset of settled offsets does not end within {MAX_SPAN // 8} bytes")

    digits = f"{int.from_bytes(bits, 'little'):b}"[::-1].encode()
    if digits.startswith(b"1"):
        raise ValueError("the watermark itself is settled, so it is not the watermark")

    return [(watermark + run.start(), watermark + run.end()) for run in _SETTLED.finditer(digits)]


def _bitset(watermark: int, edges: list[int]) -> bytes:
    if not edges:
        return b""

    span = edges[-1] - watermark
    digits = bytearray(b"0") * (span + 1)
    for edge in edges:
        digits[watermark - edge - 1] = ord("1")

    # Each edge turns settled on or off for all offsets from it on. So a bit is the exclusive or of the edges up to it,
    # which doubling computes for all bits at once; filling run by run takes five times as long in a ragged window.
    bits = int(digits, 2)
    distance = 1
    while distance <= span:
        bits ^= bits << distance
        distance *= 2

    return (bits & ((1 << span) - 1)).to_bytes(-(-span // 8), "little")


def _first_bits(bits: bytes, count: int) -> bytes:
    whole, rest = divmod(count, 8)
    return bits[:whole] + bytes((bits[whole] & ((1 << rest) - 1),)) if rest else bits[:whole]


def _deflate(data: bytes) -> bytes:
    # Raw: the checkpoint has a checksum of its own, so zlib's frame of six bytes is saved.
    squeezer = zlib.compressobj(wbits=-15)
    return squeezer.compress(data) + squeezer.flush()
