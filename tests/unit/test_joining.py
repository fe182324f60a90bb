"""Joining small pieces changes how many there are, and nothing else."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from rustmq_sdk._runtime.joining import FULL, SMALL, join_small
from rustmq_sdk.slots import Fetched
from rustmq_sdk.values import Assignment, Gone, TopicPartition

ASSIGNMENTS = [Assignment(TopicPartition("t", number), 1) for number in range(3)]


def build(records: Any, piece: Any, first: int) -> list[Any]:
    return []


def piece(assignment: Assignment, first: int, count: int, *, gap: int = 0, largest: int = 10) -> Fetched:
    offsets = range(first, first + count)
    return Fetched(assignment, offsets, list(offsets), build, first + count + gap, 10 * count, largest)


@st.composite
def fetches(draw: st.DrawFn) -> list[Fetched]:
    """What one fetch may bring: pieces of several partitions, in order within each, some with gaps behind them."""
    ends = [0, 0, 0]
    pieces = []
    for _ in range(draw(st.integers(0, 30))):
        number = draw(st.integers(0, 2))
        count = draw(st.sampled_from([0, 1, 7, 20, SMALL - 1, SMALL, 400]))
        gap = draw(st.sampled_from([0, 0, 0, 3]))
        pieces.append(piece(ASSIGNMENTS[number], ends[number], count, gap=gap))
        ends[number] += count + gap

    return pieces


def flat(fetched: Any) -> dict[Assignment, tuple[list[int], list[Any], int, int]]:
    """All that the runtime reads of a fetch, by assignment."""
    found: dict[Assignment, tuple[list[int], list[Any], int, int]] = {}
    for each in fetched:
        offsets, records, _, size = found.get(each.assignment, ([], [], 0, 0))
        found[each.assignment] = (
            [*offsets, *each.offsets],
            [*records, *each.records],
            each.next_offset,
            size + each.size,
        )

    return found


@given(fetches())
def test_joining_changes_nothing_but_the_number_of_pieces(fetched: list[Fetched]) -> None:
    before = flat(fetched)
    joined = join_small(fetched)
    assert flat(joined) == before
    assert len(joined) <= len(fetched)
    for each in joined:
        assert list(each.offsets) == each.records
        assert len(each.records) <= FULL


def test_twenty_five_pieces_of_twenty_become_one() -> None:
    joined = join_small([piece(ASSIGNMENTS[0], 20 * number, 20) for number in range(25)])
    assert [len(each.records) for each in joined] == [500]
    assert joined[0].largest == 10


def test_a_driver_keeps_its_own_lists() -> None:
    first, second = piece(ASSIGNMENTS[0], 0, 2), piece(ASSIGNMENTS[0], 2, 2)
    join_small([first, second])
    assert first.records == [0, 1]
    assert second.records == [2, 3]


def test_what_has_more_to_say_stays_by_itself() -> None:
    lossy = piece(ASSIGNMENTS[0], 2, 2)
    lossy.gone = (Gone(ASSIGNMENTS[0].tp, 1, 2, "retention"),)
    assert len(join_small([piece(ASSIGNMENTS[0], 0, 2), lossy])) == 2


def test_an_unknown_largest_record_stays_unknown() -> None:
    joined = join_small([piece(ASSIGNMENTS[0], 0, 2, largest=0), piece(ASSIGNMENTS[0], 2, 2)])
    assert joined[0].largest == 0
