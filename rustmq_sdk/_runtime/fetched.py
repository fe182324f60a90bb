"""What a fetch has brought, put together and taken apart: synchronous, and nothing is remembered.

Not in the core, which knows nothing of the slots.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain

from rustmq_sdk.slots import Fetched
from rustmq_sdk.values import Assignment, Broken, Gone

SMALL = 100
"""Pieces of fewer messages are joined with what follows them; copying larger ones would cost more than it saves."""
FULL = 500
"""Messages a joined piece holds at most: partitions take turns by piece, and a piece frees its bytes at its end."""


def join_small(fetched: Sequence[Fetched]) -> Sequence[Fetched]:
    """The same messages in fewer pieces, in the order of their partitions; large pieces stay as they are.

    A piece costs the same whatever is in it, about 15 us.
    """
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


def split_at_holes(fetched: Fetched) -> Iterator[tuple[Fetched, Broken | Gone | None]]:
    """The good records before each broken one and each lost range, and after the last."""
    offsets = fetched.offsets
    done = 0
    holes: list[Broken | Gone] = [*fetched.broken, *fetched.gone]
    for hole in sorted(holes, key=_start):
        cut = bisect_left(offsets, _start(hole), done)
        yield _part(fetched, done, cut, next_offset=_start(hole)), hole
        done = cut

    yield _part(fetched, done, len(offsets), next_offset=fetched.next_offset), None


def _part(fetched: Fetched, first: int, end: int, *, next_offset: int) -> Fetched:
    return replace(
        fetched,
        offsets=fetched.offsets[first:end],
        records=fetched.records[first:end],
        next_offset=next_offset,
        size=_share(fetched, end - first),
        broken=(),
        gone=(),
    )


def only(fetched: Fetched, indexes: Sequence[int]) -> Fetched:
    """A queue's piece with only these of its records."""
    if len(indexes) == len(fetched.records):
        return fetched

    return replace(
        fetched,
        offsets=range(len(indexes)),
        records=[fetched.records[index] for index in indexes],
        receipts=[fetched.receipts[index] for index in indexes],
        attempts=[fetched.attempts[index] for index in indexes] if fetched.attempts else (),
        size=_share(fetched, len(indexes)),
        gone=(),
    )


def _share(fetched: Fetched, count: int) -> int:
    """Of the bytes, for so many of the records; each may be larger than that, as ``largest`` says."""
    return fetched.size * count // max(1, len(fetched.records))


def _start(hole: Broken | Gone) -> int:
    return hole.offset if isinstance(hole, Broken) else hole.first
