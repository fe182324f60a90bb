from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rustmq_sdk._core.commit_due import FIRST_BACKOFF, SHORT_PAUSE, CommitDue
from rustmq_sdk.config import ConsumerConfig

CONFIG = ConsumerConfig(commit_every=100, commit_interval=1.0, max_uncommitted=1000)


class Settling:
    """What a caller knows, asked in the words of the tests."""

    def __init__(self, config: ConsumerConfig = CONFIG) -> None:
        self.due = CommitDue(config)
        self.uncommitted = 0
        self.since: float | None = None

    def settle(self, count: int, now: float) -> None:
        self.uncommitted += count
        self.since = now if self.since is None else self.since

    def commit(self, left: int = 0) -> None:
        self.uncommitted, self.since = left, None
        self.due.succeeded()

    def at(self, now: float, *, idle: bool = False, pressed: bool = False) -> float | None:
        due = self.due.due_in(now=now, uncommitted=self.uncommitted, since=self.since, idle=idle, pressed=pressed)
        return None if due is None else round(due, 6)


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
    due = CommitDue(CONFIG)
    due.succeeded(newer=40)
    assert due.due_in(now=0, uncommitted=45, since=0, idle=False, pressed=False) == CONFIG.commit_interval
    # Five of them are what the commit had no room for.
    assert due.due_in(now=0, uncommitted=5 + CONFIG.commit_every - 1, since=0, idle=False, pressed=False) != 0
    assert due.due_in(now=0, uncommitted=5 + CONFIG.commit_every, since=0, idle=False, pressed=False) == 0


def test_failures_back_off_up_to_the_interval_and_a_success_forgets_them() -> None:
    due = CommitDue(CONFIG)
    assert [due.failed() for _ in range(6)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    due.succeeded()
    assert due.failed() == FIRST_BACKOFF
    eager = CommitDue(ConsumerConfig(commit_interval=0.001))
    assert [eager.failed() for _ in range(2000)] == [FIRST_BACKOFF] * 2000


@given(st.lists(st.tuples(st.floats(0, 0.5), st.integers(0, 60), st.booleans(), st.booleans()), max_size=60))
def test_nothing_settled_ever_waits_longer_than_the_interval(
    steps: list[tuple[float, int, bool, bool]],
) -> None:
    settling, now = Settling(), 0.0
    for wait, count, idle, pressed in steps:
        now += wait
        if count:
            settling.settle(count, now)

        due = settling.at(now, idle=idle, pressed=pressed)
        assert (due is None) == (settling.uncommitted == 0)
        if settling.since is not None and due is not None:
            assert 0 <= due <= max(0.0, settling.since + CONFIG.commit_interval - now) + 1e-6

        if due == 0:
            settling.commit()
