"""Putting pieces together and taking them apart changes how many there are, and nothing else."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from rustmq_sdk._runtime.fetched import FULL, SMALL, join_small, only, split_at_holes
from rustmq_sdk.slots import Fetched
from rustmq_sdk.values import Assignment, Broken, Gone, Receipt, TopicPartition

ASSIGNMENTS = [Assignment(TopicPartition("t", number), 1) for number in range(3)]


def build(records: Any, piece: Any, first: int) -> list[Any]:
    return []


def piece(assignment: Assignment, first: int, count: int, *, gap: int = 0, largest: int = 10) -> Fetched:
    offsets = range(first, first + count)
    return Fetched(assignment, offsets, list(offsets), build, first + count + gap, 10 * count, largest)


@st.composite
def fetches(draw: st.DrawFn) -> list[Fetched]:
    """What one fetch may bring: pieces of several partitions, in order within each, some with gaps after them."""
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


@given(st.sets(st.integers(0, 60), max_size=40), st.sets(st.integers(0, 60), max_size=6), st.integers(0, 5))
def test_splitting_at_holes_keeps_all_offsets_and_their_order(scanned: set[int], holes: set[int], lost: int) -> None:
    offsets = sorted(scanned - holes)
    broken = [Broken(offset, b"raw", ValueError("damaged")) for offset in sorted(holes)]
    gone = [Gone(ASSIGNMENTS[0].tp, 61, 61 + lost, "deleted")] if lost else []
    fetched = Fetched(ASSIGNMENTS[0], offsets, offsets, build, 70, 1000, broken=broken, gone=gone)
    seen: list[int] = []
    end = 0
    for part, hole in split_at_holes(fetched):
        assert list(part.offsets) == list(part.records)
        assert not part.broken
        assert not part.gone
        assert all(end <= offset < part.next_offset for offset in part.offsets)
        seen += part.offsets
        end = part.next_offset
        if isinstance(hole, Broken):
            assert hole.offset == end
            seen.append(hole.offset)
            end += 1
        elif hole is not None:
            assert hole.first == end
            seen += range(hole.first, hole.end)
            end = hole.end

    assert end == 70
    assert seen == sorted(scanned | holes) + list(range(61, 61 + lost))


def test_parts_share_the_bytes() -> None:
    broken = [Broken(3, b"raw", ValueError("damaged"))]
    fetched = Fetched(ASSIGNMENTS[0], [0, 1, 2, 4], [0, 1, 2, 4], build, 5, 1000, largest=400, broken=broken)
    assert [(part.size, part.largest) for part, _ in split_at_holes(fetched)] == [(750, 400), (250, 400)]


@given(st.integers(0, 20), st.data())
def test_only_some_of_a_queues_messages_keep_their_names_and_attempts(count: int, data: st.DataObject) -> None:
    indexes = sorted(data.draw(st.sets(st.integers(0, count - 1)))) if count else []
    names = [f"m{number}" for number in range(count)]
    attempts = data.draw(st.sampled_from([(), tuple(range(1, count + 1))]))
    receipts = [Receipt(name, None) for name in names]
    fetched = Fetched(
        ASSIGNMENTS[0], range(count), names, build, count, 100 * count, receipts=receipts, attempts=attempts
    )
    some = only(fetched, indexes)
    assert some.records == [names[index] for index in indexes] == [receipt.id for receipt in some.receipts]
    assert list(some.attempts) == ([index + 1 for index in indexes] if attempts else [])
    assert len(some.offsets) == len(indexes)
    assert some.size == 100 * len(indexes)
