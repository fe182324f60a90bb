"""Which member of a group should have which partition."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TypeVar

from rustmq_sdk.values import TopicPartition

MemberT = TypeVar("MemberT")


def balance(
    partitions: Sequence[TopicPartition],
    members: Mapping[MemberT, Collection[str]],
    current: Mapping[TopicPartition, MemberT],
) -> dict[TopicPartition, MemberT]:
    """Spreads partitions over members (each with the topics it wants): even first, and then moving as few as possible.

    A partition stays where it is unless its owner has at least two more than a member that could take it, the rule of
    Kafka's cooperative sticky assignor (KIP-54). The same arguments give the same answer: ties go to the member that
    joined first.
    """
    target: dict[TopicPartition, MemberT] = {}
    for tp in partitions:
        owner = current.get(tp)
        if owner is not None and tp.topic in members.get(owner, ()):
            target[tp] = owner

    loads = dict.fromkeys(members, 0)
    for owner in target.values():
        loads[owner] += 1

    for tp in partitions:
        if tp not in target:
            takers = [member for member, topics in members.items() if tp.topic in topics]
            if takers:
                _give(tp, min(takers, key=loads.__getitem__), target, loads)

    while _even_out(members, target, loads):
        pass

    return target


def _even_out(
    members: Mapping[MemberT, Collection[str]],
    target: dict[TopicPartition, MemberT],
    loads: dict[MemberT, int],
) -> bool:
    """Moves one partition from a member to one that has at least two less; False if there is none."""
    for taker in sorted(members, key=loads.__getitem__):
        givers = [tp for tp, owner in target.items() if loads[owner] > loads[taker] + 1 and tp.topic in members[taker]]
        if givers:
            _give(max(givers, key=lambda tp: loads[target[tp]]), taker, target, loads)
            return True

    return False


def _give(
    tp: TopicPartition, member: MemberT, target: dict[TopicPartition, MemberT], loads: dict[MemberT, int]
) -> None:
    if tp in target:
        loads[target[tp]] -= 1

    target[tp] = member
    loads[member] += 1
