"""Who gets which partition: evenly, and with as few moves as that takes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rustmq_sdk.drivers.memory.balance import balance
from rustmq_sdk.values import TopicPartition

Members = dict[str, list[str]]

some_members = st.dictionaries(
    st.sampled_from("ABCDE"), st.lists(st.sampled_from("xyz"), min_size=1, unique=True), max_size=5
)
some_counts = st.dictionaries(st.sampled_from("xyz"), st.integers(1, 5))


def partitions_of(counts: dict[str, int]) -> list[TopicPartition]:
    return [TopicPartition(topic, number) for topic in sorted(counts) for number in range(counts[topic])]


def loads_of(target: dict[TopicPartition, str], members: Members) -> dict[str, int]:
    return {member: sum(owner == member for owner in target.values()) for member in members}


@given(some_counts, some_members, some_members)
def test_every_partition_has_one_owner_who_wants_it_and_no_move_would_be_fairer(
    counts: dict[str, int], before: Members, members: Members
) -> None:
    partitions = partitions_of(counts)
    target = balance(partitions, members, balance(partitions, before, {}))
    wanted = {topic for topics in members.values() for topic in topics}
    assert sorted(target) == [tp for tp in partitions if tp.topic in wanted]
    loads = loads_of(target, members)
    for tp, owner in target.items():
        assert tp.topic in members[owner]
        assert all(loads[owner] <= loads[other] + 1 for other, topics in members.items() if tp.topic in topics)


@given(some_counts, some_members)
def test_asking_again_moves_nothing(counts: dict[str, int], members: Members) -> None:
    partitions = partitions_of(counts)
    target = balance(partitions, members, {})
    assert balance(partitions, members, target) == target


@given(st.integers(1, 12), st.integers(1, 5))
def test_a_newcomer_takes_only_its_share(count: int, members: int) -> None:
    partitions = partitions_of({"x": count})
    old = {f"M{number}": ["x"] for number in range(members)}
    before = balance(partitions, old, {})
    after = balance(partitions, {**old, "new": ["x"]}, before)
    moved = {tp for tp in partitions if before[tp] != after[tp]}
    assert moved == {tp for tp in partitions if after[tp] == "new"}, "nothing moves between those who were there"
    assert len(moved) == count // (members + 1)


@given(st.integers(1, 12), st.integers(2, 5))
def test_only_what_a_leaving_member_had_moves(count: int, members: int) -> None:
    partitions = partitions_of({"x": count})
    old = {f"M{number}": ["x"] for number in range(members)}
    before = balance(partitions, old, {})
    after = balance(partitions, {member: topics for member, topics in old.items() if member != "M0"}, before)
    assert {tp for tp in partitions if before[tp] != after[tp]} == {tp for tp in partitions if before[tp] == "M0"}


def test_without_members_nobody_has_anything() -> None:
    assert balance(partitions_of({"x": 3}), {}, {}) == {}
