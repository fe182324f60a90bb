"""Who gets what in a group of the embedded log, and who is taken for dead: decisions without a file."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from rustmq_sdk.drivers import sqlite
from rustmq_sdk.drivers.sqlite.beats import BeatWatch
from rustmq_sdk.drivers.sqlite.fair_shares import fair_shares
from rustmq_sdk.drivers.sqlite.group import PROTOCOL, Member, View
from rustmq_sdk.values import TopicPartition


@given(st.permutations(range(4)), st.permutations(range(8)))
def test_every_member_arrives_at_the_same_plan_in_whatever_order_it_reads_the_group(
    members: list[int], partitions: list[int]
) -> None:
    def planned(members: Iterable[int], partitions: Iterable[int]) -> dict[int, bytes | None]:
        joined = {bytes([member]): Member(0, ["a"], None, PROTOCOL) for member in members}
        return View(joined, {}, {TopicPartition("a", number): number for number in partitions}).planned()

    assert planned(members, partitions) == planned(range(4), range(8))


def test_nobody_is_planned_for_what_nobody_wants() -> None:
    member = Member(0, ["a"], None, PROTOCOL)
    assert View({b"m": member}, {}, {TopicPartition("b", 0): 7}).planned() == {7: None}


def test_a_member_is_dead_when_its_beat_stood_still_for_the_lease() -> None:
    watch = BeatWatch(lease=8.0)
    for second in range(0, 8, 2):
        assert not watch.look(second, {b"still": 5, b"alive": second}, silent_for=1)

    assert watch.look(8, {b"still": 5, b"alive": 8}, silent_for=1) == {b"still": 5}


def test_a_beat_that_moves_starts_the_count_again() -> None:
    watch = BeatWatch(lease=8.0)
    for second, beat in ((0, 5), (2, 5), (4, 5), (6, 6), (8, 6), (10, 6), (12, 6)):
        assert not watch.look(second, {b"m": beat}, silent_for=1)

    assert watch.look(14, {b"m": 6}, silent_for=1) == {b"m": 6}


def test_who_has_not_looked_has_seen_nothing() -> None:
    watch = BeatWatch(lease=8.0)
    watch.look(0, {b"m": 5}, silent_for=1)
    assert not watch.look(100, {b"m": 5}, silent_for=1), "we were stopped: perhaps it was beating all the time"
    for second in (102, 104, 106):
        assert not watch.look(second, {b"m": 5}, silent_for=1)

    assert watch.look(108, {b"m": 5}, silent_for=1) == {b"m": 5}


def test_who_looks_less_than_every_quarter_of_the_lease_counts_nobody_as_dead() -> None:
    watch = BeatWatch(lease=8.0)
    for second in range(0, 60, 3):
        assert not watch.look(second, {b"m": 5}, silent_for=1), "it may have beaten twice in between"

    for second in (59, 61, 63):
        assert not watch.look(second, {b"m": 5}, silent_for=1)

    assert watch.look(65, {b"m": 5}, silent_for=1) == {b"m": 5}


def test_who_does_not_get_his_own_beats_through_counts_nobody_as_dead() -> None:
    watch = BeatWatch(lease=8.0)
    for second in range(0, 30, 2):  # somebody holds the file, and everybody's beats wait
        assert not watch.look(second, {b"m": 5}, silent_for=second)

    for second in (30, 32, 34):
        assert not watch.look(second, {b"m": 5}, silent_for=1), "its next beat may be on its way"

    assert watch.look(36, {b"m": 5}, silent_for=1) == {b"m": 5}


def test_only_what_stamps_messages_reads_the_wall_clock() -> None:
    """It jumps; every lease, beat and deadline goes by a clock that does not."""
    readers = {
        file.name
        for file in Path(sqlite.__file__).parent.glob("*.py")
        if re.search(r"time\.time|time_ns|\bdatetime\b|from time import", file.read_text(encoding="utf-8"))
    }
    assert readers == {"driver.py"}


@given(st.lists(st.integers(0, 50), max_size=8), st.integers(0, 60))
def test_a_fetch_is_divided_fairly_and_used_up(available: list[int], room: int) -> None:
    granted = fair_shares(available, room)
    assert all(0 <= share <= has for share, has in zip(granted, available, strict=True))
    assert sum(granted) == min(room, sum(available))
    unsatisfied = [share for share, has in zip(granted, available, strict=True) if share < has]
    if len([has for has in available if has]) <= room:
        assert all(share <= least + 1 for share in granted for least in unsatisfied)
    else:
        takers = [at for at, has in enumerate(available) if has][:room]
        assert [at for at, share in enumerate(granted) if share] == takers
