"""Small neighbouring pieces of one fetch made into one: a piece costs the same whatever is in it, about 15 us."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from rustmq_sdk.slots import Fetched
from rustmq_sdk.values import Assignment

SMALL = 100
"""Pieces of fewer messages are joined with what follows them; copying larger ones would cost more than it saves."""
FULL = 500
"""Messages a joined piece holds at most: partitions take turns by piece, and a piece frees its bytes at its end."""


def join_small(fetched: Sequence[Fetched]) -> Sequence[Fetched]:
    """The same messages in fewer pieces, in the order of their partitions; large pieces stay as they are."""
    if not fetched[1:] or len(fetched[0].records) >= SMALL:
        return fetched

    runs: list[list[Fetched]] = []
    last: dict[Assignment, list[Fetched]] = {}
    for piece in fetched:
        run = last.get(piece.assignment)
        if run is not None and _follows(run, piece):
            run.append(piece)
        else:
            last[piece.assignment] = run = [piece]
            runs.append(run)

    return [run[0] if len(run) == 1 else _joined(run) for run in runs]


def _follows(run: list[Fetched], piece: Fetched) -> bool:
    before = run[-1]
    return (
        len(piece.records) < SMALL
        and sum(len(each.records) for each in run) + len(piece.records) <= FULL
        and piece.build is before.build
        and _plain(before)
        and _plain(piece)
        and before.next_offset == piece.offsets[0] == before.offsets[-1] + 1
    )


def _plain(piece: Fetched) -> bool:
    """Dense offsets, records in a list, and nothing else to say."""
    nothing_else = not (piece.broken or piece.gone or piece.receipts)
    return nothing_else and isinstance(piece.offsets, range) and isinstance(piece.records, list) and bool(piece.records)


def _joined(run: list[Fetched]) -> Fetched:
    first, last = run[0], run[-1]
    return Fetched(
        first.assignment,
        range(first.offsets[0], last.offsets[-1] + 1),
        list(chain.from_iterable(piece.records for piece in run)),
        first.build,
        last.next_offset,
        sum(piece.size for piece in run),
        0 if any(not piece.largest for piece in run) else max(piece.largest for piece in run),
    )
