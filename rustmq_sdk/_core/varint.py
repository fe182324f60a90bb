"""Little-endian base-128 numbers as Protocol Buffers has them, many at once."""

from __future__ import annotations

from collections.abc import Sequence

CONTINUED = 0x80
"""Set on every byte of a number but its last."""
LONGEST = 10
"""Bytes; enough for 64 bits."""


def write(numbers: Sequence[int], group: int = 1, room: int | None = None) -> tuple[bytes, int]:
    """As many whole groups of numbers as fit into ``room`` bytes, and how many numbers that is."""
    if room is None:
        room = LONGEST * len(numbers)

    # Most numbers are small, and then bytes() writes all of them at once.
    if max(numbers, default=0) < CONTINUED:
        count = min(len(numbers), max(room, 0) // group * group)
        return bytes(numbers[:count]), count

    out = bytearray()
    for start in range(0, len(numbers), group):
        before = len(out)
        for number in numbers[start : start + group]:
            _append(out, number)

        if len(out) > room:
            del out[before:]
            return bytes(out), start

    return bytes(out), len(numbers)


def _append(out: bytearray, number: int) -> None:
    while number >= CONTINUED:
        out.append(number & 0x7F | CONTINUED)
        number >>= 7

    out.append(number)


def read(data: bytes, start: int = 0) -> tuple[int, int]:
    """The number at ``start``, and where the next one begins. Raises ``ValueError`` if there is none."""
    number = shift = 0
    for position in range(start, min(start + LONGEST, len(data))):
        number |= (data[position] & 0x7F) << shift
        shift += 7
        if data[position] < CONTINUED:
            return number, position + 1

    raise ValueError(f"expected a number of at most {LONGEST} bytes at byte {start} of {len(data)}")


def read_all(data: bytes) -> list[int]:
    """All numbers up to the end of ``data``. Raises ``ValueError`` if the last one is cut off."""
    if not data or max(data) < CONTINUED:
        return list(data)

    numbers = []
    position = 0
    while position < len(data):
        number, position = read(data, position)
        numbers.append(number)

    return numbers


def framed(body: bytes) -> bytes:
    """The body after its length."""
    return write((len(body),))[0] + body


def room_in_frame(room: int) -> int:
    """The longest body whose frame fits into ``room`` bytes; below 0 if not even an empty one does."""
    for length in range(1, LONGEST):
        if room - length < 1 << 7 * length:
            return room - length

    raise OverflowError(f"expected a size in bytes, got {room}")
