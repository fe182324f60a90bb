"""Checkpoints that the broker has no room for.

The whole of one goes to a state store, and the broker gets its name beside as much of it as fits. The name is a digest
of the contents: whoever reads it back knows whether it has found what was meant, and a checkpoint that has not changed
keeps its name, so it need not be written again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

from rustmq_sdk._core.checkpoint import NONCE_BYTES, CorruptCheckpoint, Remembered, decode, encode
from rustmq_sdk._core.settled_runs import Runs


class Fitted(NamedTuple):
    """What to write of a checkpoint.

    Attributes:
        extra: beside the watermark.
        covered: every settled run below it is remembered.
        spill: for the state store, to be stored before ``extra`` is committed; empty if ``extra`` has everything.
        full: more than three quarters of the room are used, and there is no spill.
    """

    extra: bytes
    covered: int
    spill: bytes
    full: bool


def fit(watermark: int, runs: Runs, attempts: Mapping[int, int], room: int | None, *, spills: bool) -> Fitted:
    """As much as fits into ``room`` bytes (None: everything), and the rest of it if that may spill."""
    remembered = Remembered(runs, dict(attempts))
    extra, covered = encode(watermark, remembered, room)
    # Without any room there is nothing to keep free.
    full = room is not None and room > 0 and (len(extra) * 4 > room * 3 or covered < _end(watermark, runs))
    if not (full and spills):
        return Fitted(extra, covered, b"", full)

    whole, end = encode(watermark, remembered, None)
    named, _ = encode(watermark, Remembered(runs, dict(attempts), name_of(whole)), room)
    # So little room that not even the name fits.
    return Fitted(named, end, whole, full=False) if named else Fitted(extra, covered, b"", full)


def name_of(spill: bytes) -> int:
    """What the broker has to remember of a spill."""
    return int.from_bytes(hashlib.blake2b(spill, digest_size=NONCE_BYTES).digest(), "big")


def unspilled(watermark: int, spill: bytes, nonce: int) -> Remembered | None:
    """What a spill remembers, if it is the one of this name."""
    if name_of(spill) != nonce:
        return None

    try:
        return decode(watermark, spill)
    except CorruptCheckpoint:  # a spill of this very name, of another release
        return None


def _end(watermark: int, runs: Runs) -> int:
    return runs[-1][1] if runs else watermark
