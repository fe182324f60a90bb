"""Who gets which partition: evenly, and with as few moves as that takes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rustmq_sdk._balance import balance

Members = dict[str, list[str]]
Owners = dict[int, str]

some_members = st.dictionaries(
    st.sampled_from("ABCDE"), st.lists(st.sampled_from("xyz"), min_size=1, unique=True), max_size=5
)
some_partitions = st.dictionaries(st.integers(0, 30), st.sampled_from("xyz"), max_size=20)
some_owners = st.dictionaries(st.integers(0, 30), st.none() | st.sampled_from("ABCDE") | st.just("stranger"))


def loads_of(owners: Owners, members: Members) -> dict[str, int]:
    return {member: sum(owner == member for owner in owners.values()) for member in members}


@given(some_partitions, some_members, some_owners)
def test_every_partition_has_one_owner_who_wants_it_and_no_move_would_be_fairer(
    partitions: dict[int, str], members: Members, current: dict[int, str | None]
) -> None:
    owners = balance(partitions, members, current)
    wanted = {topic for topics in members.values() for topic in topics}
    assert list(owners) == [partition for partition, topic in partitions.items() if topic in wanted]
    loads = loads_of(owners, members)
    for partition, owner in owners.items():
        able = [member for member, topics in members.items() if partitions[partition] in topics]
        assert owner in able
        assert all(loads[owner] <= loads[other] + 1 for other in able)

    assert balance(partitions, members, owners) == owners, "a plan that was carried out stays as it is"


@given(st.integers(0, 12), st.lists(st.sampled_from(["A", "B", "C", None]), min_size=12, max_size=12))
def test_only_what_makes_owners_more_even_moves(count: int, found: list[str | None]) -> None:
    members: Members = {"A": ["x"], "B": ["x"], "C": ["x"]}
    current = dict(enumerate(found[:count]))
    owners = balance(dict.fromkeys(current, "x"), members, current)
    before = [sum(owner == member for owner in current.values()) for member in members]
    fair = [count // 3 + (rank < count % 3) for rank in range(3)]
    too_many = sum(max(has - share, 0) for has, share in zip(sorted(before, reverse=True), fair, strict=True))
    moved = [partition for partition, owner in current.items() if owner is not None and owners[partition] != owner]
    assert len(moved) == too_many, "nothing is moved that could have stayed"


@given(st.integers(1, 12), st.integers(1, 5))
def test_a_newcomer_takes_only_its_share(count: int, members: int) -> None:
    partitions = dict.fromkeys(range(count), "x")
    old = {f"M{number}": ["x"] for number in range(members)}
    before = balance(partitions, old, {})
    after = balance(partitions, {**old, "new": ["x"]}, before)
    moved = {partition for partition in partitions if before[partition] != after[partition]}
    assert moved == {partition for partition in partitions if after[partition] == "new"}, "nobody else gets any"
    assert len(moved) == count // (members + 1)


@given(st.integers(1, 12), st.integers(2, 5))
def test_only_what_a_leaving_member_had_moves(count: int, members: int) -> None:
    partitions = dict.fromkeys(range(count), "x")
    old = {f"M{number}": ["x"] for number in range(members)}
    before = balance(partitions, old, {})
    after = balance(partitions, {member: topics for member, topics in old.items() if member != "M0"}, before)
    moved = {partition for partition in partitions if before[partition] != after[partition]}
    assert moved == {partition for partition in partitions if before[partition] == "M0"}


def test_without_members_nobody_has_anything() -> None:
    assert balance({0: "x", 1: "x"}, {}, {}) == {}
