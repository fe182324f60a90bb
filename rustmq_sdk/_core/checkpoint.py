"""What a checkpoint remembers beside its watermark, as bytes that fit where the broker has room.

::

    extra    version (1 byte)   crc32 of watermark and sections (4 bytes)   sections
    section  tag (1 byte)   length (varint)   body

    SETTLED_STEPS   varints: the pause before each settled run and its length, in turn, from the watermark on
    SETTLED_BITS    raw deflate of a bitset: bit i of byte b stands for offset watermark + 8 * b + i
    ATTEMPTS        varints: step from the offset before (the first: from the watermark - 1) and attempts, in turn
    NONCE           big-endian integer

Sections with other tags are skipped, so later versions can add some; a change of meaning takes a new version byte. The
two ways to write what is settled compete: steps win while there are few runs, bits in a ragged window.

The checksum covers the watermark, so that an extra which somebody copied to another position is refused instead of
skipping messages that nobody handled.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate, chain, islice
from operator import sub

from rustmq_sdk._core import varint
from rustmq_sdk._core.settled_runs import MAX_OFFSET, edges_of, read_bits, read_steps, write_bits, write_steps

VERSION = 1
SETTLED_STEPS = 1
SETTLED_BITS = 2
ATTEMPTS = 3
NONCE = 4

HEADER = 5
"""Bytes before the first section."""
NONCE_BYTES = 8


class CorruptCheckpoint(ValueError):
    """The bytes beside a committed position are not ours, damaged, or belong to another position.

    The position itself is valid. What was settled above it is not known, so those messages run again.
    """

    def __init__(self, problem: str) -> None:
        super().__init__(f"{problem}. Start at the committed offset without it: what was settled above it runs again")


@dataclass(slots=True)
class Remembered:
    """What is known above a watermark.

    Attributes:
        settled: runs ``[first, end)`` of settled offsets, ascending, touching neither each other nor the watermark.
        attempts: how often each nacked, still unsettled offset was tried.
        nonce: names the spill of this checkpoint, if there is one; below 2 ** 64.
    """

    settled: list[tuple[int, int]] = field(default_factory=list)
    attempts: dict[int, int] = field(default_factory=dict)
    nonce: int | None = None


def encode(watermark: int, remembered: Remembered, room: int | None) -> tuple[bytes, int]:
    """Writes as much as fits into ``room`` bytes (None: all of it), and says how far that reaches.

    Returns the extra and ``covered``: every settled run below it is included and none above it; the watermark if none
    is. What does not fit is left out in this order: attempts from the highest offset down, settled runs from the
    highest down. The nonce stays, since the spill it names has the rest. Without room for anything, ``b""``.

    Raises:
        ValueError: ``remembered`` contradicts itself or the watermark. Written down, it would lose messages.
    """
    nonce = b"" if remembered.nonce is None else _nonce(remembered.nonce)
    edges = edges_of(watermark, remembered.settled)
    steps = _attempt_steps(watermark, remembered.attempts)
    left = (sys.maxsize if room is None else room) - HEADER - len(nonce)
    if left < 0:
        return b"", watermark

    settled, covered = _settled(watermark, edges, left)
    sections = nonce + settled + _attempts(steps, left - len(settled))
    if not sections:
        return b"", watermark

    return bytes((VERSION,)) + _checksum(watermark, sections) + sections, covered


def decode(watermark: int, extra: bytes) -> Remembered:
    """Reads what :func:`encode` wrote for this watermark.

    Raises:
        CorruptCheckpoint: for anything else.
    """
    if not extra:
        return Remembered()

    if extra[0] != VERSION:
        raise CorruptCheckpoint(f"expected a checkpoint of version {VERSION}, got one that starts with {extra[:1]!r}")

    sections = extra[HEADER:]
    if extra[1:HEADER] != _checksum(watermark, sections):
        raise CorruptCheckpoint(f"the checksum does not fit watermark {watermark} and {len(sections)} bytes")

    try:
        return _read(watermark, _split(sections))
    except ValueError as error:
        raise CorruptCheckpoint(str(error)) from error


def _read(watermark: int, sections: Mapping[int, bytes]) -> Remembered:
    remembered = Remembered()
    if SETTLED_STEPS in sections and SETTLED_BITS in sections:
        raise ValueError("what is settled is there twice")

    if SETTLED_STEPS in sections:
        remembered.settled = read_steps(watermark, sections[SETTLED_STEPS])
    elif SETTLED_BITS in sections:
        remembered.settled = read_bits(watermark, sections[SETTLED_BITS])

    if ATTEMPTS in sections:
        remembered.attempts = _read_attempts(watermark, sections[ATTEMPTS])

    if NONCE in sections:
        remembered.nonce = _read_nonce(sections[NONCE])

    return remembered


def _checksum(watermark: int, sections: bytes) -> bytes:
    return zlib.crc32(sections, zlib.crc32(b"%d:" % watermark)).to_bytes(4, "big")


def _section(tag: int, body: bytes) -> bytes:
    return bytes((tag,)) + varint.framed(body) if body else b""


def _room_in_section(room: int) -> int:
    return varint.room_in_frame(room - 1)


def _split(sections: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    start = 0
    while start < len(sections):
        tag = sections[start]
        length, start = varint.read(sections, start + 1)
        end = start + length
        if end > len(sections):
            raise ValueError(f"section {tag} ends at byte {end} of {len(sections)}")

        if tag in found:
            raise ValueError(f"section {tag} is there twice")

        found[tag] = sections[start:end]
        start = end

    return found


def _settled(watermark: int, edges: list[int], room: int) -> tuple[bytes, int]:
    """The section that reaches higher within ``room`` bytes, or else the shorter one; and how far it reaches."""
    if not edges:
        return b"", watermark

    room = _room_in_section(room)
    bits, covered_by_bits = write_bits(watermark, edges, room)
    # A step takes a byte at least, which tells without writing them that they lose in a ragged window.
    if covered_by_bits == edges[-1] and len(bits) <= len(edges):
        return _section(SETTLED_BITS, bits), covered_by_bits

    steps, covered_by_steps = write_steps(watermark, edges, room)
    if (covered_by_steps, -len(steps)) > (covered_by_bits, -len(bits)):
        return _section(SETTLED_STEPS, steps), covered_by_steps

    return _section(SETTLED_BITS, bits), covered_by_bits


def _attempt_steps(watermark: int, attempts: Mapping[int, int]) -> list[int]:
    offsets = sorted(attempts)
    counts = [attempts[offset] for offset in offsets]
    if offsets and not (watermark <= offsets[0] and max(offsets[-1], *counts) < MAX_OFFSET and min(counts) > 0):
        raise ValueError(f"expected attempts above 0 of offsets from {watermark} on, got {dict(attempts)}")

    steps = map(sub, offsets, chain((watermark - 1,), offsets))
    return list(chain.from_iterable(zip(steps, counts, strict=True)))


def _attempts(steps: list[int], room: int) -> bytes:
    return _section(ATTEMPTS, varint.write(steps, 2, _room_in_section(room))[0])


def _read_attempts(watermark: int, body: bytes) -> dict[int, int]:
    steps = varint.read_all(body)
    if len(steps) % 2 or not all(steps):
        raise ValueError("expected steps and attempts in turn, all above 0")

    offsets = list(islice(accumulate(steps[::2], initial=watermark - 1), 1, None))
    if offsets and offsets[-1] >= MAX_OFFSET:
        raise ValueError(f"attempts of offset {offsets[-1]}, beyond any offset")

    return dict(zip(offsets, steps[1::2], strict=True))


def _nonce(nonce: int) -> bytes:
    if not 0 <= nonce < 1 << 8 * NONCE_BYTES:
        raise ValueError(f"expected a nonce from 0 to 2 ** 64 - 1, got {nonce}")

    return _section(NONCE, nonce.to_bytes(max(-(-nonce.bit_length() // 8), 1), "big"))


def _read_nonce(body: bytes) -> int:
    if not 1 <= len(body) <= NONCE_BYTES:
        raise ValueError(f"expected a nonce of 1 to {NONCE_BYTES} bytes, got {len(body)}")

    return int.from_bytes(body, "big")
