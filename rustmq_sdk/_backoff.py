"""How long to pause after something has failed so often in a row."""

from __future__ import annotations


def pause_after(failures: int, *, first: float, most: float, factor: float = 2.0) -> float:
    """Seconds: ``first * factor ** failures``, at most ``most``, however many failures there were.

    Args:
        failures: in a row, without the one that has just happened: after the first one it is 0.
        first: the pause after the first.
        most: the longest pause.
        factor: from one pause to the next.
    """
    try:
        return min(most, first * factor**failures)
    except OverflowError:
        # A broker that stays away for hours: 2.0 ** 1024 is past the largest float.
        return most if first else 0.0
