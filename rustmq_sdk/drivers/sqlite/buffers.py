"""Memory for large batches, used again and again.

A large blob that one thread allocates and another one frees costs a page fault for every 4 KiB of it: with messages of
1 KiB that was a third of all the time. So blobs are read into buffers that come back. The pool is the process's; what
is not given back the garbage collector takes, and a new one is made.
"""

from __future__ import annotations

from collections import deque

SIZE = 1280 * 1024
"""Holds every batch but those of a single huge message: ``ROW_BYTES`` and its framing."""

_free: deque[bytearray] = deque(maxlen=4)


def take(size: int) -> memoryview:
    """Memory of that size, with anything in it."""
    try:
        buffer = _free.pop() if size <= SIZE else bytearray(size)
    except IndexError:
        buffer = bytearray(SIZE)

    return memoryview(buffer)[:size]


def give_back(data: bytes | memoryview) -> None:
    """It is not looked at any more. Ignores what is not from here, or too large to be kept."""
    if isinstance(data, memoryview) and isinstance(data.obj, bytearray) and len(data.obj) == SIZE:
        _free.append(data.obj)
