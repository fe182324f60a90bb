"""Nothing is lost when processes are killed, and nothing comes again without a reason. The long form is `make soak`."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from rustmq_sdk.drivers.sqlite import integrity_check
from tests.kills.chores import miscounted, not_buried
from tests.kills.conductor import Conductor, Plan
from tests.kills.crashing import sweep
from tests.kills.journal import Event, Journal, read
from tests.kills.reckoning import Account, reckon
from tests.services.kafka_server import KafkaServer


def conduct(folder: Path, plan: Plan) -> Account:
    file = folder / "log.db"
    account = Conductor(f"sqlite:///{file}", folder, plan, print).run()
    assert integrity_check(file) == ()
    return account


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("clock", ["steady", "jumping"])
def test_nothing_is_lost_when_processes_are_killed(tmp_path: Path, clock: str) -> None:
    account = conduct(tmp_path, Plan(seed=1, kills=8, clock=clock))
    assert account.sound, str(account)
    assert account.kills == 8
    assert account.confirmed > 500
    assert account.durable > 50
    # What a kill brings again is what was at work, or acked since the last commit 0.2 s before: not the whole run.
    assert sum(account.again.values()) - account.again["its attempt had failed"] < account.stored / 4


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_nothing_is_lost_on_kafka_when_processes_are_killed(tmp_path: Path, kafka: KafkaServer) -> None:
    plan = Plan(seed=1, kills=8, lease=2.0, pause=2.0, topic=f"kills-{secrets.token_hex(4)}")
    account = Conductor(f"kafka://{kafka.bootstrap}", tmp_path, plan, print).run()
    assert account.sound, str(account)
    assert account.kills == 8
    assert account.durable > 50
    # Settled out of order, committed beside the watermark, and not run again: that would not be sound.
    assert account.remembered > 0
    assert sum(account.again.values()) - account.again["its attempt had failed"] < account.stored / 4


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_nothing_is_lost_when_a_consumer_stands_still_for_longer_than_its_lease(tmp_path: Path) -> None:
    account = conduct(tmp_path, Plan(seed=3, kills=0, stops=2, lease=2.0))
    assert account.sound, str(account)
    assert account.stops == 2


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("statements", [range(0, 60, 6), range(60, 2000, 45)], ids=["opening", "working"])
def test_nothing_is_lost_between_two_statements(tmp_path: Path, statements: range) -> None:
    tried = 0
    for number, account in sweep(tmp_path, statements):
        assert account.sound, f"a crash before statement {number}:\n{account}"
        tried += 1

    assert tried >= 10


# The account itself can fail: each of these runs breaks one promise.

A, B = "w0.0", "w1.0"


class Tale:
    """A made-up run of one message."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.note("s0.0", "sending", 0, 1)
        self.note("s0.0", "sent", 0, 1)

    def note(self, who: str, what: str, *details: object) -> Tale:
        self.events.append(Event(len(self.events), who, what, tuple(map(str, details))))
        return self

    def handled(self, who: str, fate: str | None = "recorded", *, epoch: int = 1) -> Tale:
        self.note(who, "handling", "s0:0", 2, 7, epoch, 1)
        return self if fate is None else self.note(who, fate, "s0:0", 2, 7, epoch)

    def account(self, *places: tuple[int, int]) -> Account:
        return reckon(self.events, {"s0:0": places or [(2, 7)]})


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
    tale = (
        Tale().note(A, "handling", "s0:0", 2, 7, 1, 1).note(A, "acking", "s0:0", 2, 7).note(A, "stale", "s0:0", 2, 7, 1)
    )
    assert tale.note("conductor", "killed", A).account().lost


def test_an_ack_that_a_kill_has_cut_short_may_have_been_carried_out() -> None:
    assert Tale().handled(A, "acking").note("conductor", "killed", A).account().sound
    assert Tale().handled(A, "acking").note("crowd", "cancelled", A).account().sound


def test_what_was_confirmed_must_be_stored_once() -> None:
    tale = Tale().handled(A)
    assert "not in the log" in reckon(tale.events, {}).broken[0]
    assert "sent once" in tale.account((2, 7), (3, 1)).broken[0]
    assert "nobody has sent it" in reckon(tale.events, {"s0:0": [(2, 7)], "s9:0": [(0, 0)]}).broken[0]


def test_a_kill_explains_what_was_not_committed() -> None:
    killed = Tale().handled(A).note("conductor", "killed", A).handled(B, epoch=2).account()
    assert killed.sound
    assert killed.again == {"acked, not committed when killed": 1}
    unsettled = Tale().handled(A, None).note("conductor", "killed", A).handled(B, epoch=2).account()
    assert unsettled.again == {"unsettled when killed": 1}


@pytest.mark.parametrize("fate", ["recorded", "pending", None])
def test_nothing_is_handled_twice_for_no_reason(fate: str | None) -> None:
    (broken,) = Tale().handled(A, fate).handled(B, epoch=2).account().broken
    assert "for no reason" in broken


def test_a_letter_that_was_not_written_when_its_partition_moved_is_a_reason() -> None:
    assert Tale().handled(A, "rejected").account().sound
    moved = Tale().handled(A, "rejected").handled(B, epoch=2).account()
    assert moved.again == {"rejected, its letter not written when its partition moved": 1}
    assert not Tale().handled(A, "rejected").handled(A).account().sound
    assert not Tale().handled(A, "rejected").note(A, "committed", 2, 8).handled(B, epoch=2).account().sound


def test_a_rejected_message_is_among_the_dead_letters_or_handled_again() -> None:
    tale = Tale().handled(A, None).note(A, "rejecting", "s0:0", 2, 7)
    assert not_buried(tale.events, {}) == ["s0:0 was rejected, and is not among the dead letters"]
    assert not_buried(tale.events, {"s0:0": [(0, 0)]}) == []
    assert not_buried(tale.handled(B, epoch=2).events, {}) == []


def test_a_counter_is_where_it_was_confirmed_to_be_or_one_further() -> None:
    tale = Tale().note(A, "counting", 1).note(A, "counted", 1).note(A, "counting", 2)
    assert [bool(miscounted(tale.events, count)) for count in range(4)] == [True, False, False, True]


def test_a_durable_ack_is_final() -> None:
    tale = Tale().handled(A, "durable").note("conductor", "killed", A).handled(B, epoch=2)
    assert "after it was acked durably" in tale.account().broken[0]
    assert any(
        "durably 2 times" in broken for broken in Tale().handled(A, "durable").handled(B, "durable").account().broken
    )


def test_a_commit_is_final() -> None:
    tale = Tale().handled(A).note(A, "committed", 2, 8).note("conductor", "killed", A)
    assert "a commit had covered it" in tale.handled(B, epoch=2).account().broken[0]
    below = Tale().handled(A).note(A, "committed", 2, 7).note("conductor", "killed", A)
    assert below.handled(B, epoch=2).account().sound


def test_standing_still_explains_what_others_took_over() -> None:
    tale = (
        Tale().handled(A, None).note("conductor", "stopped", A).handled(B, "durable", epoch=2).note(A, "stale", "s0:0")
    )
    assert tale.account().sound
    again = Tale().note("conductor", "stopped", A).handled(B, "durable", epoch=2).handled(A, "stale").account()
    assert again.sound
    assert again.again == {"in the hands of a process that had stood still": 1}


def test_an_epoch_has_one_owner() -> None:
    (broken,) = Tale().handled(A, "failed").handled(B).account().broken
    assert broken == "partition 2 had several owners in epoch 1: w0.0, w1.0"


def test_a_journal_has_whole_lines_in_order(tmp_path: Path) -> None:
    for name in (A, B):
        Journal(tmp_path / f"{name}.journal").note("handling", "s0:0", 2)

    first, second = read(tmp_path)
    assert (first.who, second.who) == (A, B)
    assert first.at < second.at
    assert first[2:] == ("handling", ("s0:0", "2"))


def test_a_commit_passes_nothing_that_is_unsettled() -> None:
    assert "passed the unsettled offset 7" in Tale().note(A, "committed", 2, 8).handled(A).account().broken[0]
    assert "has the unsettled offset 7" in Tale().note(A, "committed", 2, 5, "6-8").handled(A).account().broken[0]
    assert Tale().handled(A).note(A, "committed", 2, 5, "6-8").account().sound
    assert Tale().note(A, "committed", 2, 5, "6-7").handled(A).account().sound


def test_what_is_committed_above_a_watermark_is_final_as_well() -> None:
    tale = Tale().handled(A).note(A, "committed", 2, 5, "6-8").note("conductor", "killed", A)
    account = tale.account()
    assert account.sound
    assert account.remembered == 2
    assert "a commit had covered it" in tale.handled(B, epoch=2).account().broken[0]


def test_an_owner_that_was_followed_handles_nothing_more() -> None:
    (broken,) = Tale().note(B, "handling", "s0:1", 2, 8, 2, 1).handled(A).account().broken
    assert broken == "partition 2 was handled by w0.0 in epoch 1 after w1.0 in epoch 2"
    assert Tale().note("conductor", "stopped", A).note(B, "handling", "s0:1", 2, 8, 2, 1).handled(A).account().sound


def test_what_was_in_the_hands_of_the_cancelled_and_of_the_unheard_runs_again() -> None:
    cancelled = Tale().handled(A, None).note("crowd", "cancelled", A).handled(B, epoch=2).account()
    assert cancelled.again == {"unsettled when cancelled": 1}
    unheard = Tale().handled(A).note(A, "rebalanced", "+[]", "-[2]", "expired").handled(B, epoch=2).account()
    assert unheard.again == {"in the hands of a process that nobody could hear": 1}
    asked = Tale().handled(A).note(A, "rebalanced", "+[]", "-[2]", "moved").handled(B, epoch=2).account()
    assert "for no reason" in asked.broken[0]
