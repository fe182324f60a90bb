from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rustmq_sdk._core.commit_due import FIRST_BACKOFF, PACE, SHORT_PAUSE, CommitDue, Levels
from rustmq_sdk.config import ConsumerConfig

CONFIG = ConsumerConfig(commit_every=100, commit_interval=1.0, max_uncommitted=1000)


class Settling:
    """What the one who asks knows, in the words of the tests."""

    def __init__(self, config: ConsumerConfig = CONFIG, *, by_itself: bool = True) -> None:
        self.due = CommitDue(config, by_itself=by_itself)
        self.uncommitted = 0
        self.now = 0.0

    def settle(self, count: int, now: float, *, quiet: bool = False) -> bool:
        """Whether somebody has to be woken."""
        self.now = now
        self.uncommitted += count
        return self.due.settled(count, quiet=quiet) and self.due.notice(now, quiet=quiet)

    def begin(self, now: float | None = None, *, took: float = 0.0, in_flight: bool = False) -> None:
        self.now = self.now if now is None else now
        self.due.begins(self.now, took=took, in_flight=in_flight)

    def commit(self, left: int = 0) -> None:
        self.begin()
        self.uncommitted = left
        self.due.succeeded(self.now, left)

    def at(self, now: float, *, idle: bool = False, pressed: bool = False, wanted: bool = False) -> float | None:
        self.now = now
        due = self.due.due_in(now, Levels(self.uncommitted, not idle, pressed), wanted=wanted)
        return None if due is None else round(due, 6)

    def wait(self, now: float, *, idle: bool = False, busy: bool = False) -> float | None:
        """For how long the one who asks does so."""
        return self.due.wait(now, self.at(now, idle=idle), busy=busy)


def test_nothing_settled_is_nothing_to_commit() -> None:
    settling = Settling()
    assert settling.at(0) is None
    assert settling.at(5, idle=True, pressed=True) is None


def test_a_full_batch_is_due_at_once() -> None:
    settling = Settling()
    settling.settle(99, now=0)
    assert settling.at(0) == 1
    settling.settle(1, now=0.2)
    assert settling.at(0.2) == 0


def test_the_oldest_settled_message_waits_one_interval_at_most() -> None:
    settling = Settling()
    settling.settle(1, now=10)
    assert settling.at(10.1) == 0.9
    settling.settle(1, now=10.5)
    assert settling.at(10.5) == 0.5
    assert settling.at(11) == 0
    assert settling.at(12) == 0


def test_after_a_commit_the_interval_starts_with_the_next_settled_message() -> None:
    settling = Settling()
    settling.settle(1, now=0)
    assert settling.at(1) == 0
    settling.commit()
    assert settling.at(1) is None
    settling.settle(1, now=5)
    assert settling.at(5) == 1


def test_what_was_settled_while_a_commit_was_in_flight_waits_from_then_on() -> None:
    settling = Settling()
    settling.settle(1, now=0)
    assert settling.at(1, idle=True) == 0
    settling.commit()
    settling.settle(1, now=1.2)
    assert settling.at(1.3) == 0.9


def test_when_nothing_else_will_come_soon_a_commit_is_due_after_a_short_pause() -> None:
    settling = Settling()
    settling.settle(1, now=0)
    assert settling.at(0.2) == 0.8
    assert settling.at(0.3, idle=True) == SHORT_PAUSE
    assert settling.at(0.33, idle=True) == 0.02
    assert settling.at(0.35, idle=True) == 0


def test_the_pause_starts_again_when_work_came_meanwhile() -> None:
    settling = Settling()
    settling.settle(1, now=0)
    settling.at(0, idle=True)
    assert settling.at(0.04, idle=False) == 0.96
    assert settling.at(0.06, idle=True) == SHORT_PAUSE


def test_the_pause_starts_again_after_a_commit() -> None:
    settling = Settling()
    settling.settle(1, now=0)
    assert settling.at(0, idle=True) == SHORT_PAUSE
    settling.commit()
    settling.settle(1, now=10)
    assert settling.at(10, idle=True) == SHORT_PAUSE


def test_the_pause_is_never_longer_than_the_interval() -> None:
    settling = Settling(ConsumerConfig(commit_interval=0.01))
    settling.settle(1, now=0)
    assert settling.at(0, idle=True) == 0.01


def test_under_pressure_a_commit_is_due_at_once() -> None:
    settling = Settling()
    settling.settle(1, now=0)
    assert settling.at(0, pressed=True) == 0


def test_too_much_exposure_makes_a_commit_due_at_once() -> None:
    settling = Settling(ConsumerConfig(commit_every=5000, max_uncommitted=1000))
    settling.settle(999, now=0)
    assert settling.at(0) == 1
    settling.settle(1, now=0)
    assert settling.at(0) == 0


def test_lasting_pressure_makes_a_commit_due_every_short_pause_and_not_more_often() -> None:
    settling = Settling()
    settling.settle(1, now=0)
    assert settling.at(0, pressed=True) == 0
    settling.commit(left=1)
    assert settling.at(0, pressed=True) is None
    settling.settle(1, now=0.01)
    assert settling.at(0.01, pressed=True) == 0.04
    assert settling.at(0.05, pressed=True) == 0


def test_what_a_commit_could_not_cover_makes_none_due_again_by_itself() -> None:
    settling = Settling()
    settling.settle(5000, now=0)
    assert settling.at(0) == 0
    settling.commit(left=4000)
    assert settling.at(0, idle=True, pressed=True) is None
    assert settling.at(100, idle=True, pressed=True) is None


def test_a_full_batch_is_counted_from_what_was_left_out() -> None:
    settling = Settling(ConsumerConfig(commit_every=100))
    settling.settle(5000, now=0)
    settling.at(0)
    settling.commit(left=4000)
    settling.at(0)
    settling.settle(99, now=100)
    assert settling.at(100) == 1
    settling.settle(1, now=100.5)
    assert settling.at(100.5) == 0


def test_when_a_partition_goes_with_what_was_left_out_new_messages_count_from_zero() -> None:
    settling = Settling(ConsumerConfig(commit_every=100))
    settling.settle(500, now=0)
    settling.at(0)
    settling.commit(left=500)
    settling.at(0)
    settling.uncommitted = 0
    assert settling.at(1) is None
    settling.settle(99, now=2)
    assert settling.at(2) == 1
    settling.settle(1, now=2)
    assert settling.at(2) == 0


def test_settled_messages_that_nobody_told_of_count_from_when_they_are_seen() -> None:
    settling = Settling()
    settling.uncommitted = 3
    assert settling.at(10) == 1
    assert settling.at(10.6) == 0.4


def test_what_was_settled_while_a_commit_was_under_way_fills_the_next_one() -> None:
    settling = Settling()
    settling.settle(100, now=0)
    settling.begin()
    settling.settle(40, now=0)
    # Five of them are what the commit had no room for.
    settling.due.succeeded(0, 45)
    settling.uncommitted = 45
    assert settling.at(0) == CONFIG.commit_interval
    settling.settle(59, now=0)
    assert settling.at(0) != 0
    settling.settle(1, now=0)
    assert settling.at(0) == 0


def test_after_failures_none_is_due_for_longer_and_longer_and_a_success_forgets_them() -> None:
    settling, pauses = Settling(), []
    settling.settle(100, now=0)
    for _ in range(6):
        settling.due.failed(0)
        pauses.append(settling.at(0))

    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    settling.commit()
    settling.settle(100, now=0)
    settling.due.failed(0)
    assert settling.at(0) == FIRST_BACKOFF


def test_after_any_number_of_failures_the_pause_is_the_interval_or_the_shortest() -> None:
    settling = Settling(ConsumerConfig(commit_interval=0.001))
    settling.settle(1, now=0)
    for _ in range(2000):
        settling.due.failed(0)

    assert settling.at(0) == FIRST_BACKOFF


def test_a_circuit_that_stays_open_for_longer_prolongs_the_pause() -> None:
    settling = Settling()
    settling.settle(100, now=0)
    settling.due.failed(0, at_least=60)
    assert settling.at(20) == 40


def test_what_a_failed_commit_carried_is_due_again_even_if_no_message_counts_for_it() -> None:
    settling = Settling()
    settling.due.changed(0)
    settling.begin(0)
    settling.due.failed(0)
    assert settling.at(0) == 1.0


def test_nobody_who_waits_for_a_commit_gets_one_inside_of_the_pause() -> None:
    settling = Settling()
    settling.due.failed(0)
    assert settling.at(0.04, wanted=True) == 0.06
    assert settling.at(0.1, wanted=True) == 0


def test_whoever_waits_for_a_commit_gets_it_at_once_even_if_nothing_is_settled() -> None:
    settling = Settling()
    assert settling.at(0) is None
    assert settling.at(0, wanted=True) == 0


def test_without_auto_commit_only_being_wanted_makes_it_due() -> None:
    settling = Settling(by_itself=False)
    assert not settling.settle(5000, now=0)
    assert settling.at(100, idle=True, pressed=True) is None
    assert settling.at(100, wanted=True) == 0


def test_a_checkpoint_that_is_expensive_to_encode_comes_more_rarely() -> None:
    settling = Settling()
    settling.begin(10, took=0.03)
    settling.due.succeeded(10, 0)
    settling.settle(100, now=10)
    assert settling.at(10) == 0.6 == round(PACE * 0.03, 6)
    assert settling.due.paced_for(10.5) == pytest.approx(0.1)
    assert settling.at(10, wanted=True) == 0


def test_however_expensive_it_is_the_interval_is_kept() -> None:
    settling = Settling()
    settling.begin(10, took=500)
    settling.due.succeeded(10, 0)
    settling.settle(100, now=10)
    assert settling.at(10) == 1.0


class TestLooking:
    """Acks of FREE slots tell nobody."""

    def test_while_something_is_in_flight_somebody_looks_once_an_interval(self) -> None:
        settling = Settling()
        assert settling.due.look_regularly(0)
        assert settling.due.looks
        assert settling.at(0) == 1
        settling.begin(1, in_flight=True)
        settling.due.succeeded(1, 0)
        assert settling.at(1.2) == 0.8

    def test_with_nothing_in_flight_nobody_looks(self) -> None:
        settling = Settling()
        settling.due.look_regularly(0)
        assert settling.at(0, idle=True) is None
        settling.begin(1, in_flight=False)
        assert not settling.due.looks

    def test_whoever_will_look_anyway_is_not_woken_for_it(self) -> None:
        settling = Settling()
        settling.settle(1, now=0)
        settling.wait(0)
        assert not settling.due.look_regularly(0.5)


class TestWaking:
    def test_the_first_message_wakes_one_who_waits_for_ever(self) -> None:
        settling = Settling()
        assert settling.wait(0) is None
        assert settling.settle(1, now=0)

    def test_the_next_ones_do_not(self) -> None:
        settling = Settling()
        settling.settle(1, now=0)
        assert settling.wait(0) == 1
        assert not any(settling.settle(1, now=0.5) for _ in range(98))

    def test_a_full_batch_does_each_time(self) -> None:
        settling = Settling()
        settling.settle(1, now=0)
        settling.wait(0)
        assert settling.settle(99, now=0.5)
        assert not settling.settle(99, now=0.5)
        assert settling.settle(1, now=0.5)

    def test_a_full_batch_is_counted_anew_after_a_commit(self) -> None:
        settling = Settling()
        settling.settle(100, now=0)
        settling.commit()
        settling.settle(1, now=0)
        settling.wait(0)
        assert settling.settle(99, now=0)

    def test_going_quiet_does_unless_somebody_looks_soon_by_himself(self) -> None:
        settling = Settling()
        settling.settle(1, now=0)
        settling.wait(0)
        assert settling.settle(1, now=0.5, quiet=True)
        assert settling.wait(0.5, busy=True) == SHORT_PAUSE
        assert not settling.settle(1, now=0.51, quiet=True)

    def test_what_is_to_go_with_the_next_commit_does_once(self) -> None:
        due = CommitDue(CONFIG)
        assert due.changed(0)
        assert not due.changed(0.1)
        due.begins(0.2, took=0, in_flight=False)
        assert due.changed(0.3)


@given(st.lists(st.tuples(st.floats(0, 0.5), st.integers(0, 60), st.booleans(), st.booleans()), max_size=60))
def test_nothing_settled_ever_waits_longer_than_the_interval(
    steps: list[tuple[float, int, bool, bool]],
) -> None:
    settling, now = Settling(), 0.0
    since: float | None = None
    for wait, count, idle, pressed in steps:
        now += wait
        if count:
            settling.settle(count, now)
            since = now if since is None else since

        due = settling.at(now, idle=idle, pressed=pressed)
        assert (due is None) == (settling.uncommitted == 0)
        if since is not None and due is not None:
            assert 0 <= due <= max(0.0, since + CONFIG.commit_interval - now) + 1e-6

        if due == 0:
            settling.commit()
            since = None
