from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rustmq_sdk._backoff import pause_after

seconds = st.floats(0, 1e9)


def test_the_pause_doubles_up_to_the_longest() -> None:
    assert [pause_after(failures, first=0.5, most=3) for failures in range(5)] == [0.5, 1, 2, 3, 3]


def test_it_grows_by_another_factor_where_one_is_given() -> None:
    assert [pause_after(failures, first=1, most=1000, factor=10) for failures in range(4)] == [1, 10, 100, 1000]


def test_without_a_first_pause_there_is_none_after_any_number_of_failures() -> None:
    assert pause_after(0, first=0, most=60) == 0
    assert pause_after(1_000_000, first=0, most=60) == 0


@given(st.integers(0, 10**9), seconds, seconds, st.floats(1, 1e9))
def test_no_number_of_failures_ends_it_or_makes_it_longer_than_the_longest(
    failures: int, first: float, most: float, factor: float
) -> None:
    pause = pause_after(failures, first=first, most=most, factor=factor)
    assert 0 <= pause <= most
    assert pause_after(failures + 1, first=first, most=most, factor=factor) >= pause
