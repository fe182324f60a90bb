"""What a checkpoint remembers beside its offset, as the text that Kafka keeps with a committed offset."""

from __future__ import annotations

import base64
import binascii

LIMIT = 4096
"""Characters that a broker takes at most (``offset.metadata.max.bytes``, its default; it counts characters)."""
ROOM = LIMIT // 4 * 3
"""Bytes that fit into them as base64. Base85 would hold 6 % more, and nobody could read it with a shell."""


def as_text(extra: bytes) -> str:
    """The text to commit."""
    return base64.b64encode(extra).decode("ascii")


def as_bytes(text: str | None) -> bytes:
    """What :func:`as_text` was given.

    Text that somebody else has committed is none of ours. It is answered as bytes all the same: the runtime finds no
    checkpoint in them, says so, and starts at the offset, which is valid whoever committed it.
    """
    if not text:
        return b""

    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return text.encode()
