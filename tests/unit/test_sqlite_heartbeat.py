"""When a member of the embedded log's groups beats, and what the answers mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rustmq_sdk.drivers.sqlite import heartbeat
from rustmq_sdk.drivers.sqlite.heartbeat import Heartbeat

FIVE_MINUTES = 300
LEASE = 40.0


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(heartbeat, "time", clock)
    return clock


class File:
    """What the beats are written to, and who hears that one was missed."""

    def __init__(self) -> None:
        self.beats = 0
        self.missed: list[str] = []

    def request(self, _change: Callable[..., bool], _answered: Any) -> None:
        self.beats += 1

    def miss(self) -> None:
        self.missed.append("missed")


def beating(file: File, member: bytes = b"me", joined_at: float = 0.0) -> Heartbeat:
    beating = Heartbeat("alarm", LEASE, file.request, file.miss)
    beating.live()
    beating.start(member, joined_at)
    return beating


def test_a_beat_comes_every_quarter_of_a_lease(clock: Clock) -> None:
    file = File()
    member = beating(file)
    for clock.now in (5.0, 10.0, 12.0, 19.0, 20.0):
        assert 0 < member.tick() <= LEASE / 4

    assert file.beats == 2


def test_a_loop_that_hangs_for_more_than_five_minutes_is_not_vouched_for(clock: Clock) -> None:
    file = File()
    member = beating(file)
    while clock.now < FIVE_MINUTES:
        clock.now += LEASE / 4
        member.tick()

    assert file.beats == FIVE_MINUTES / (LEASE / 4), "a handler that blocks the loop for less is no silence"
    for _ in range(10):
        clock.now += LEASE / 4
        assert member.tick() > 0

    assert file.beats == FIVE_MINUTES / (LEASE / 4)
    member.live()
    clock.now += LEASE / 4
    member.tick()
    assert file.beats == FIVE_MINUTES / (LEASE / 4) + 1


def test_an_answer_that_comes_late_does_not_take_back_a_later_one(clock: Clock) -> None:
    member = beating(File())
    member.confirm(asked_at=10.0)
    member.answered(b"me", 5.0, alive=True)
    clock.now = 12.0
    assert member.silent_for() == 2.0


@pytest.mark.usefixtures("clock")
def test_that_an_earlier_self_was_expired_is_no_news() -> None:
    file = File()
    member = beating(file, b"first")
    member.start(b"second", 1.0)
    member.answered(b"first", 0.5, alive=False)
    assert not file.missed
    member.answered(b"second", 1.5, alive=False)
    assert file.missed == ["missed"]
