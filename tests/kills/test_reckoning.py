"""The account can fail: each of these made-up runs breaks one promise, or keeps it by a hair."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.kills.chores import miscounted, not_buried
from tests.kills.journal import Event, Journal, read
from tests.kills.lives import SECOND, Bounds
from tests.kills.reckoning import Account, reckon
from tests.kills.standstills import noting
from tests.services import kafka_wire

ROOT = Path(__file__).parents[2]
A, B, C = "w0.0", "w1.0", "w2.0"
BOUNDS = Bounds(commit_interval=0.2, lease=3.0, slack=0.5)
YOUNG, OLD = 0.6, 0.8
"""Seconds: on both sides of what an ack may wait for its commit."""
SOON, LATE = 3.4, 3.6
"""Seconds: on both sides of when a process notices at the latest that others took over."""

STOOD_STILL = "in the hands of a process that had stood still"
UNHEARD = "in the hands of a process that nobody could hear"


class Tale:
    """A made-up run of one message."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._at = 0
        self.note("s0.0", "sending", 0, 1)
        self.note("s0.0", "sent", 0, 1)

    def note(self, who: str, what: str, *details: object) -> Tale:
        self._at += 1
        self.events.append(Event(self._at, who, what, tuple(map(str, details))))
        return self

    def after(self, seconds: float) -> Tale:
        """The next line is so much later."""
        self._at += int(seconds * SECOND)
        return self

    def handled(self, who: str, fate: str | None = "recorded", *, epoch: int = 1) -> Tale:
        self.note(who, "handling", "s0:0", 2, 7, epoch, 1)
        return self if fate is None else self.note(who, fate, "s0:0", 2, 7, epoch)

    def killed(self, who: str) -> Tale:
        return self.note("conductor", "killed", who)

    def stopped(self, who: str, seconds: float = 4.0) -> Tale:
        return self.note("conductor", "stopped", who).after(seconds).note("conductor", "continued", who)

    def stood_still(self, seconds: float) -> Tale:
        """The whole machine, from now on."""
        began = self._at
        return self.after(seconds).note("conductor", "standstill", began)

    def got(self, who: str, reason: str = "expired") -> Tale:
        return self.note(who, "rebalanced", "+[1,2]", "-[]", reason)

    def lost(self, who: str, reason: str = "expired") -> Tale:
        return self.note(who, "rebalanced", "+[]", "-[2]", reason)

    def committed(self, who: str, watermark: int, *above: str) -> Tale:
        return self.note(who, "committed", 2, watermark, *above)

    def account(self, *places: tuple[int, int]) -> Account:
        return reckon(self.events, {"s0:0": places or [(2, 7)]}, BOUNDS)

    def again(self) -> str:
        """Why it was handled the second time; the run is sound."""
        account = self.account()
        assert account.sound, str(account)
        (reason,) = account.again
        return reason

    def broken(self) -> str:
        """The promise that was broken, and no message lost."""
        account = self.account()
        assert not account.lost
        (broken,) = account.broken
        return broken


# What is stored and settled


def test_a_good_run_is_sound() -> None:
    account = Tale().handled(A, "failed").handled(A, "durable").account()
    assert account.sound
    assert (account.confirmed, account.stored, account.handled, account.durable) == (1, 1, 1, 1)
    assert account.again == {"its attempt had failed": 1}


def test_what_nobody_settled_is_lost() -> None:
    assert Tale().account().lost
    assert Tale().handled(A, None).account().lost
    assert Tale().handled(A, "stale").account().lost
    assert Tale().handled(A, "acking").account().lost


def test_an_ack_that_came_too_late_is_none_even_if_a_kill_follows() -> None:
    tale = Tale().handled(A, "acking").note(A, "stale", "s0:0", 2, 7, 1)
    assert tale.killed(A).account().lost


def test_an_ack_that_a_kill_has_cut_short_may_have_been_carried_out() -> None:
    assert Tale().handled(A, "acking").killed(A).account().sound
    assert Tale().handled(A, "acking").note("crowd", "cancelled", A).account().sound


def test_an_ack_that_a_short_close_has_cut_off_was_carried_out_if_a_commit_says_so() -> None:
    assert Tale().handled(A, "acking").committed(A, 8).account().sound
    assert Tale().handled(A, "acking").committed(A, 3, "7-8").account().sound
    assert Tale().handled(A, "acking").committed(A, 7).account().lost
    assert Tale().committed(A, 7).handled(A, "acking").account().lost
    late = Tale().handled(A, "acking").note(A, "stale", "s0:0", 2, 7, 1).committed(A, 8)
    assert late.account().lost, "that said that it had settled nothing"


def test_what_was_confirmed_must_be_stored_once() -> None:
    tale = Tale().handled(A)
    assert "not in the log" in reckon(tale.events, {}, BOUNDS).broken[0]
    assert "sent once" in tale.account((2, 7), (3, 1)).broken[0]
    assert "nobody has sent it" in reckon(tale.events, {"s0:0": [(2, 7)], "s9:0": [(0, 0)]}, BOUNDS).broken[0]


@pytest.mark.parametrize("fate", ["recorded", "pending", None])
def test_nothing_is_handled_twice_for_no_reason(fate: str | None) -> None:
    assert "for no reason" in Tale().handled(A, fate).handled(B, epoch=2).broken()


def test_an_attempt_that_fails_later_is_no_reason() -> None:
    tale = Tale().handled(A, None).handled(B, epoch=2).note(A, "failed", "s0:0", 2, 7, 1)
    assert "for no reason" in tale.broken()


# Kills


def test_a_kill_explains_what_was_not_settled() -> None:
    assert Tale().handled(A, None).after(60).killed(A).handled(B, epoch=2).again() == "unsettled when killed"
    assert Tale().handled(A, "acking").killed(A).handled(B, epoch=2).again() == "unsettled when killed"
    assert "for no reason" in Tale().handled(A, None).handled(B, epoch=2).killed(A).broken()


@pytest.mark.parametrize("fate", ["recorded", "pending", "rejected"])
def test_a_kill_explains_acks_that_could_not_be_committed_before_it(fate: str) -> None:
    young = Tale().handled(A, fate).after(YOUNG).killed(A).after(60).handled(B, epoch=2)
    assert young.again() == "acked, not committed when killed"
    old = Tale().handled(A, fate).after(OLD).killed(A).handled(B, epoch=2)
    assert "although w0.0 had 0.8 s to commit its ack" in old.broken()


def test_a_process_that_stands_still_commits_nothing() -> None:
    young = Tale().handled(A).stopped(A, 2).after(YOUNG).killed(A).handled(B, epoch=2)
    assert young.again() == "acked, not committed when killed"
    old = Tale().handled(A).after(OLD / 2).stopped(A, 2).after(OLD / 2).killed(A).handled(B, epoch=2)
    assert "had 0.8 s" in old.broken()


def test_when_the_machine_stands_still_every_process_does() -> None:
    young = Tale().handled(A).stood_still(2).after(YOUNG).killed(A).handled(B, epoch=2)
    assert young.again() == "acked, not committed when killed"
    old = Tale().handled(A).after(OLD / 2).stood_still(2).after(OLD / 2).killed(A).handled(B, epoch=2)
    assert "had 0.8 s" in old.broken()
    overtaken = Tale().got(A).handled(A, None).stood_still(4).got(B).handled(B, epoch=2)
    assert overtaken.again() == STOOD_STILL
    late = Tale().got(A).handled(A, None).stood_still(4).after(LATE).got(B).handled(B, epoch=2)
    assert "for no reason" in late.broken()


STANDING = """
import sys
from pathlib import Path
from tests.kills.journal import Journal
from tests.kills.standstills import noting

with noting(Journal(Path(sys.argv[1]) / "standing.journal"), sys.argv[2]):
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_a_standstill_is_noted_with_its_beginning(tmp_path: Path) -> None:
    command = [sys.executable, "-c", STANDING, str(tmp_path), "sqlite:///log.db"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.5)  # real processes
        process.send_signal(signal.SIGCONT)
        while not (noted := read(tmp_path)):
            time.sleep(0.01)

        process.stdin.close()

    assert max(event.at - int(event.details[0]) for event in noted) > 0.4 * SECOND
    assert {event.what for event in noted} == {"standstill"}


def test_a_server_that_does_not_answer_is_a_standstill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, well = threading.Event(), threading.Event()

    def brokers(port: int) -> set[int]:
        asked.set()
        if not well.is_set():
            raise TimeoutError

        return {port}

    monkeypatch.setattr(kafka_wire, "brokers", brokers)
    with noting(Journal(tmp_path / "conductor.journal"), "kafka://127.0.0.1:9092"):
        assert asked.wait(30)
        time.sleep(0.5)  # a real thread
        well.set()
        while not (noted := read(tmp_path)):
            time.sleep(0.01)

    assert max(event.at - int(event.details[0]) for event in noted) > 0.4 * SECOND


def test_a_kill_does_not_explain_what_was_given_up_before() -> None:
    gave_up = Tale().got(A).handled(A).lost(A, "moved").killed(A).handled(B, epoch=2)
    assert "for no reason" in gave_up.broken()
    another = Tale().got(A).handled(A).note(A, "rebalanced", "+[]", "-[1]", "moved").killed(A).handled(B, epoch=2)
    assert another.again() == "acked, not committed when killed"
    others = Tale().got(A).handled(A).lost(C).killed(A).handled(B, epoch=2)
    assert others.again() == "acked, not committed when killed"


def test_what_was_in_the_hands_of_the_cancelled_runs_again() -> None:
    cancelled = Tale().handled(A, None).note("crowd", "cancelled", A).handled(B, epoch=2)
    assert cancelled.again() == "unsettled when cancelled"
    old = Tale().handled(A).after(OLD).note("crowd", "cancelled", A).handled(B, epoch=2)
    assert "not committed when cancelled, although" in old.broken()


# Stops


def test_a_stop_explains_what_others_took_over() -> None:
    unsettled = Tale().got(A).handled(A, None).after(60).stopped(A).got(B).after(60).handled(B, epoch=2)
    assert unsettled.again() == STOOD_STILL
    acked = Tale().got(A).handled(A).after(YOUNG).stopped(A).got(B).handled(B, epoch=2)
    assert acked.again() == STOOD_STILL


def test_a_stop_does_not_explain_acks_that_could_be_committed_before_it() -> None:
    old = Tale().got(A).handled(A).after(OLD).stopped(A).got(B).handled(B, epoch=2)
    assert "although w0.0 had 0.8 s to commit its ack" in old.broken()


def test_a_stop_does_not_explain_what_the_same_owner_has_twice() -> None:
    assert "for no reason" in Tale().got(A).handled(A).stopped(A).handled(A).broken()


def test_a_stop_explains_only_what_was_taken_over_because_of_it() -> None:
    soon = Tale().got(A).handled(A, None).stopped(A).after(SOON).got(B).handled(B, epoch=2)
    assert soon.again() == STOOD_STILL
    late = Tale().got(A).handled(A, None).stopped(A).after(LATE).got(B).handled(B, epoch=2)
    assert "for no reason" in late.broken()
    before = Tale().got(A).handled(A, None).lost(A, "moved").stopped(A).got(B).handled(B, epoch=2)
    assert "for no reason" in before.broken()
    after = Tale().got(A).handled(A, None).got(B).handled(B, epoch=2).stopped(A)
    assert "for no reason" in after.broken()
    unsaid = Tale().got(A).handled(A, None).stopped(A).handled(B, epoch=2).got(B)
    assert "for no reason" in unsaid.broken()
    another = Tale().got(A).handled(A, None).stopped(B).got(B).handled(B, epoch=2)
    assert "for no reason" in another.broken()


def test_a_stop_explains_what_came_at_hand_until_it_was_noticed() -> None:
    soon = Tale().got(A).stopped(A).handled(A, None).got(B).handled(B, epoch=2)
    assert soon.again() == STOOD_STILL
    theirs = Tale().got(A).stopped(A).got(B).handled(A, "stale").handled(B, epoch=2).lost(A)
    assert STOOD_STILL in theirs.account().again
    late = Tale().got(A).stopped(A).after(LATE).handled(A, None).got(B).handled(B, epoch=2)
    assert "for no reason" in late.broken()


def test_a_stop_does_not_explain_what_a_process_took_over_after_it() -> None:
    tale = Tale().got(A).stopped(A).got(B).lost(A).got(A).handled(A, None, epoch=3).got(C).handled(C, epoch=4)
    assert "for no reason" in tale.broken()


def test_who_is_told_again_what_it_keeps_has_had_it_before_the_stop() -> None:
    tale = Tale().got(A).stopped(A).got(A, "assigned").handled(A, None).lost(A).handled(B, epoch=2)
    assert tale.again() == STOOD_STILL


def test_who_stood_still_goes_on_with_what_others_have_until_it_notices() -> None:
    soon = Tale().got(A).stopped(A).got(B).handled(B, "durable", epoch=2).after(SOON).handled(A, "stale")
    assert soon.again() == STOOD_STILL
    late = Tale().got(A).stopped(A).got(B).handled(B, "durable", epoch=2).after(LATE).handled(A, "stale")
    assert any("after it was acked durably" in broken for broken in late.account().broken)
    assert any("in epoch 1 after w1.0 in epoch 2" in broken for broken in late.account().broken)


def test_what_runs_late_in_a_process_that_stood_still_is_no_reason_for_others() -> None:
    tale = Tale().got(A).stopped(A).got(B).handled(B, "durable", epoch=2).handled(A, "stale").got(C)
    assert "after it was acked durably" in tale.handled(C, epoch=3).broken()
    acked = Tale().got(A).stopped(A).got(B).handled(B, epoch=2).handled(A, "stale").got(C).handled(C, epoch=3)
    assert "handled by w1.0 and by w2.0 for no reason" in acked.broken()
    fenced = Tale().got(A).stopped(A).got(B).handled(B, None, epoch=2).handled(A, "durable").killed(B).got(C)
    assert "after it was acked durably" in fenced.handled(C, epoch=3).broken()


# Processes that nobody could hear


def test_what_was_in_the_hands_of_who_could_not_be_heard_runs_again() -> None:
    assert Tale().handled(A).after(YOUNG).lost(A).handled(B, epoch=2).again() == UNHEARD
    assert Tale().handled(A, None).after(60).lost(A, "fenced").handled(B, epoch=2).again() == UNHEARD


def test_an_expiry_does_not_explain_acks_that_could_be_committed_before_it() -> None:
    old = Tale().handled(A).after(OLD).lost(A).handled(B, epoch=2)
    assert "although w0.0 had 0.8 s to commit its ack" in old.broken()
    taken = Tale().handled(A).after(YOUNG).got(B).after(OLD).lost(A).handled(B, epoch=2)
    assert taken.again() == UNHEARD
    before = Tale().got(B).lost(B, "moved").got(A).handled(A).after(OLD).lost(A).handled(B, epoch=2)
    assert "had 0.8 s" in before.broken()
    kept = Tale().got(A).handled(A).got(A, "assigned").after(OLD).lost(A).handled(B, epoch=2)
    assert "had 0.8 s" in kept.broken()
    others = Tale().got(A).handled(A).lost(C).after(OLD).lost(A).handled(B, epoch=2)
    assert "had 0.8 s" in others.broken()


@pytest.mark.parametrize("reason", ["moved", "overdue", "topics_changed"])
def test_a_partition_that_is_asked_for_is_no_reason(reason: str) -> None:
    assert "for no reason" in Tale().handled(A).lost(A, reason).handled(B, epoch=2).broken()


def test_who_was_expired_comes_back_in_another_epoch_or_not_at_all() -> None:
    assert "for no reason" in Tale().got(A).handled(A).lost(A).got(A).handled(A).broken()
    assert Tale().got(A).handled(A).lost(A).got(A).handled(A, epoch=2).again() == UNHEARD


def test_another_partition_that_was_expired_is_no_reason() -> None:
    tale = Tale().handled(A).note(A, "rebalanced", "+[2]", "-[1,3]", "expired").handled(B, epoch=2)
    assert "for no reason" in tale.broken()


def test_trouble_explains_what_moves_until_it_is_noticed() -> None:
    within = Tale().handled(A).after(YOUNG).note("crowd", "troubled").after(10).got(B).handled(B, epoch=2)
    assert within.again() == UNHEARD
    before = Tale().handled(A).after(OLD).note("crowd", "troubled").after(10).got(B).handled(B, epoch=2)
    assert "although" in before.broken()
    past = Tale().note("crowd", "troubled").after(1).note("crowd", "troubled")
    assert past.after(SOON).handled(A).handled(B, epoch=2).again() == UNHEARD
    past = Tale().note("crowd", "troubled").after(1).note("crowd", "troubled")
    assert "for no reason" in past.after(LATE).handled(A).handled(B, epoch=2).broken()
    assert "for no reason" in Tale().handled(A).handled(B, epoch=2).note("crowd", "troubled").broken()


# Rejected messages


def test_a_letter_that_was_not_written_when_its_partition_moved_is_a_reason() -> None:
    assert Tale().handled(A, "rejected").account().sound
    moved = Tale().handled(A, "rejected").handled(B, epoch=2)
    assert moved.again() == "rejected, its letter not written when its partition moved"
    assert not Tale().handled(A, "rejected").handled(A).account().sound
    assert not Tale().handled(A, "rejected").committed(A, 8).handled(B, epoch=2).account().sound


def test_a_rejected_message_is_among_the_dead_letters_or_handled_again() -> None:
    tale = Tale().handled(A, None).note(A, "rejecting", "s0:0", 2, 7)
    assert not_buried(tale.events, {}) == ["s0:0 was rejected, and is not among the dead letters"]
    assert not_buried(tale.events, {"s0:0": [(0, 0)]}) == []
    assert not_buried(tale.handled(B, epoch=2).events, {}) == []


# Commits and durable acks


def test_a_durable_ack_is_final() -> None:
    assert "after it was acked durably" in Tale().handled(A, "durable").killed(A).handled(B, epoch=2).broken()
    twice = Tale().handled(A, "durable").handled(B, "durable", epoch=2).account().broken
    assert any("durably 2 times" in broken for broken in twice)


def test_a_durable_ack_is_final_even_if_its_process_stood_still_after_it() -> None:
    tale = Tale().got(A).handled(A, "durable").stopped(A).got(B).handled(B, epoch=2)
    assert "after it was acked durably" in tale.broken()


def test_a_commit_is_final() -> None:
    tale = Tale().handled(A).committed(A, 8).killed(A)
    assert "a commit had covered it" in tale.handled(B, epoch=2).broken()
    assert Tale().handled(A).committed(A, 7).killed(A).handled(B, epoch=2).account().sound
    assert Tale().handled(A).killed(A).handled(B, epoch=2).committed(B, 8).account().sound
    stopped = Tale().got(A).handled(A).committed(A, 8).stopped(A).got(B).handled(B, epoch=2)
    assert "a commit had covered it" in stopped.broken()


def test_a_commit_passes_nothing_that_is_unsettled() -> None:
    assert "passed the unsettled offset 7" in Tale().committed(A, 8).handled(A).broken()
    assert "has the unsettled offset 7" in Tale().committed(A, 5, "6-8").handled(A).broken()
    assert Tale().handled(A).committed(A, 5, "6-8").account().sound
    assert Tale().committed(A, 5, "6-7").handled(A).account().sound


def test_what_is_committed_above_a_watermark_is_final_as_well() -> None:
    tale = Tale().handled(A).committed(A, 5, "6-8").killed(A)
    account = tale.account()
    assert account.sound
    assert account.remembered == 2
    assert "a commit had covered it" in tale.handled(B, epoch=2).broken()


# Owners


def test_an_epoch_has_one_owner() -> None:
    broken = Tale().handled(A, "failed").handled(B).broken()
    assert broken == "partition 2 had several owners in epoch 1: w0.0, w1.0"


def test_an_owner_that_was_followed_handles_nothing_more() -> None:
    broken = Tale().note(B, "handling", "s0:1", 2, 8, 2, 1).handled(A).broken()
    assert broken == "partition 2 was handled by w0.0 in epoch 1 after w1.0 in epoch 2"


# What it is reckoned from


def test_a_counter_is_where_it_was_confirmed_to_be_or_one_further() -> None:
    tale = Tale().note(A, "counting", 1).note(A, "counted", 1).note(A, "counting", 2)
    assert [bool(miscounted(tale.events, count)) for count in range(4)] == [True, False, False, True]


def test_a_journal_has_whole_lines_in_order(tmp_path: Path) -> None:
    for name in (A, B):
        Journal(tmp_path / f"{name}.journal").note("handling", "s0:0", 2)

    first, second = read(tmp_path)
    assert (first.who, second.who) == (A, B)
    assert first.at < second.at
    assert first[2:] == ("handling", ("s0:0", "2"))
