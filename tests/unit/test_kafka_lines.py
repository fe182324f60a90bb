"""Which lines of producers are kept, and for how long."""

from __future__ import annotations

import pytest

pytest.importorskip("aiokafka")

from rustmq_sdk.drivers.kafka.encoding import Answer, Identity
from rustmq_sdk.drivers.kafka.lines import FORGOTTEN_SECONDS, PRODUCERS, Line, Lines, Pending
from rustmq_sdk.values import ProducerSequence

LATER = FORGOTTEN_SECONDS + 1


@pytest.fixture
def lines() -> Lines:
    return Lines()


def line_of(lines: Lines, name: str, now: float = 0.0) -> Line:
    return lines.of("t", 0, ProducerSequence(name.encode(), 0), now)


def is_kept(lines: Lines, name: str, line: Line, now: float = 0.0) -> bool:
    return line_of(lines, name, now) is line


def crowd(lines: Lines, count: int, now: float = 0.0) -> None:
    for number in range(count):
        line_of(lines, f"of the crowd: {number}", now)


def an_append() -> Pending:
    return Pending(0, [range(1)])


def test_the_line_that_was_not_used_for_the_longest_time_is_forgotten_first(lines: Lines) -> None:
    first, second = line_of(lines, "first"), line_of(lines, "second")
    line_of(lines, "first")
    crowd(lines, PRODUCERS - 1)
    assert is_kept(lines, "first", first)
    assert not is_kept(lines, "second", second)


def test_as_many_are_kept_as_there_are_producers_in_a_large_client(lines: Lines) -> None:
    first = line_of(lines, "first")
    crowd(lines, PRODUCERS - 1)
    assert is_kept(lines, "first", first)


def test_a_line_with_an_answer_lost_is_kept_until_the_append_is_stored(lines: Lines) -> None:
    unsure, sure = line_of(lines, "unsure"), line_of(lines, "sure")
    unsure.begin(0, 1, an_append).unanswered = True
    sure.begin(0, 1, an_append)
    sure.identity = unsure.identity = Identity(1, 0)
    crowd(lines, 2 * PRODUCERS)
    assert is_kept(lines, "unsure", unsure)
    assert not is_kept(lines, "sure", sure), "nothing of it was sent"
    unsure.finish(0, 1, [])
    crowd(lines, 2 * PRODUCERS)
    assert not is_kept(lines, "unsure", unsure)


def test_a_line_with_an_append_that_is_stored_in_part_is_kept_as_well(lines: Lines) -> None:
    unsure = line_of(lines, "unsure")
    pending = unsure.begin(0, 2, lambda: Pending(0, [range(1, 2), range(1)]))
    pending.settle(Answer(0, 5))
    crowd(lines, 2 * PRODUCERS)
    assert is_kept(lines, "unsure", unsure)


def test_what_nobody_came_back_for_is_forgotten_in_the_end(lines: Lines) -> None:
    unsure = line_of(lines, "unsure")
    unsure.begin(0, 1, an_append).unanswered = True
    line_of(lines, "another", LATER - 2)
    assert is_kept(lines, "unsure", unsure, LATER - 2)
    line_of(lines, "another one", 2 * LATER)
    assert not is_kept(lines, "unsure", unsure, 2 * LATER)
