"""Who gets what in a group of the embedded log, and who is taken for dead: decisions without a file."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from rustmq_sdk.drivers import sqlite
from rustmq_sdk.drivers.sqlite.beats import BeatWatch
from rustmq_sdk.drivers.sqlite.plan import plan
from rustmq_sdk.drivers.sqlite.share import shares

TOPICS = ("a", "b")
members = st.dictionaries(st.binary(min_size=1, max_size=2), st.sets(st.sampled_from(TOPICS), min_size=1), max_size=6)
partitions = st.dictionaries(st.integers(0, 30), st.sampled_from(TOPICS), max_size=20)


@given(members, partitions, st.data())
def test_a_plan_gives_everything_to_those_who_asked_and_stays_as_it_is(
    members: dict[bytes, set[str]], partitions: dict[int, str], data: st.DataObject
) -> None:
    anybody = st.none() | st.sampled_from([*members, b"stranger"])
    holders = {partition: data.draw(anybody) for partition in partitions}
    chosen = plan(members, partitions, holders)
    assert set(chosen) == set(partitions)
    for partition, owner in chosen.items():
        able = [member for member, topics in members.items() if partitions[partition] in topics]
        assert (owner in able) if able else owner is None

    assert plan(members, partitions, chosen) == chosen


@given(st.integers(1, 7), st.integers(0, 30))
def test_members_alike_get_alike_many(count: int, size: int) -> None:
    members = {bytes([member]): ("a",) for member in range(count)}
    loads = Counter(plan(members, dict.fromkeys(range(size), "a"), {}).values())
    assert max(loads.values(), default=0) - min((loads[member] for member in members), default=0) <= 1


@given(st.integers(1, 6), st.integers(0, 30))
def test_a_newcomer_takes_its_share_and_nobody_else_moves(count: int, size: int) -> None:
    members = {bytes([member]): ("a",) for member in range(count)}
    names = dict.fromkeys(range(size), "a")
    before = plan(members, names, {})
    after = plan({**members, b"new": ("a",)}, names, before)
    moved = [partition for partition in names if after[partition] != before[partition]]
    assert all(after[partition] == b"new" for partition in moved)
    assert len(moved) == size // (count + 1)


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
    granted = shares(available, room)
    assert all(0 <= share <= has for share, has in zip(granted, available, strict=True))
    assert sum(granted) == min(room, sum(available))
    unsatisfied = [share for share, has in zip(granted, available, strict=True) if share < has]
    if len([has for has in available if has]) <= room:
        assert all(share <= least + 1 for share in granted for least in unsatisfied)
    else:
        takers = [at for at, has in enumerate(available) if has][:room]
        assert [at for at, share in enumerate(granted) if share] == takers
