"""Dividing one fetch among partitions."""

from __future__ import annotations

from collections.abc import Sequence


def fair_shares(available: Sequence[int], room: int) -> list[int]:
    """How many each may take, so that nobody gets more than another who is left wanting.

    Where there is less room than there are takers the first ones get one each.
    """
    granted = [0] * len(available)
    takers = [at for at, count in enumerate(available) if count][:room]
    # From the one with the least on: what it does not need is for the others.
    for done, at in enumerate(sorted(takers, key=available.__getitem__)):
        granted[at] = min(available[at], room // (len(takers) - done))
        room -= granted[at]

    return granted
