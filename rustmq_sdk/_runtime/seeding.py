"""Where backoff and jitter get their randomness: from the system, or from the seed of a test that is to repeat."""

from __future__ import annotations

from contextvars import ContextVar
from random import Random

seeds: ContextVar[Random | None] = ContextVar("rustmq_sdk_seeds", default=None)
"""What the generators of consumers and producers made in this context are seeded from; None: the system."""


def new_rng() -> Random:
    """A generator of its own for one consumer or producer."""
    source = seeds.get()
    return Random() if source is None else Random(source.getrandbits(64))
