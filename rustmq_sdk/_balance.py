"""Which member of a group should have which partition. Every driver that shares partitions by itself asks here."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TypeVar

PartitionT = TypeVar("PartitionT")
MemberT = TypeVar("MemberT")


def balance(
    partitions: Mapping[PartitionT, str],
    members: Mapping[MemberT, Collection[str]],
    current: Mapping[PartitionT, MemberT | None],
) -> dict[PartitionT, MemberT]:
    """Spreads partitions over members: evenly first, and then with as few moves as that takes.

    A partition stays where it is unless its owner has at least two more than a member that could take it, the rule of
    Kafka's cooperative sticky assignor (KIP-54). The same arguments in the same order give the same answer, ties going
    to the member named first; and a plan that was carried out is the plan for what is then.

    Args:
        partitions: the topic of each.
        members: the topics each has subscribed to.
        current: who has a partition, or is about to get it.

    Returns:
        The owner of each partition, without those that no member wants.
    """
    owned: dict[MemberT, list[PartitionT]] = {member: [] for member in members}
    free: list[PartitionT] = []
    for partition, topic in partitions.items():
        owner = current.get(partition)
        if owner is not None and topic in members.get(owner, ()):
            owned[owner].append(partition)
        else:
            free.append(partition)

    for partition in free:
        takers = [member for member, topics in members.items() if partitions[partition] in topics]
        if takers:
            owned[min(takers, key=lambda taker: len(owned[taker]))].append(partition)

    while _even_out(partitions, members, owned):
        pass

    owners = {partition: member for member, chosen in owned.items() for partition in chosen}
    return {partition: owners[partition] for partition in partitions if partition in owners}


def _even_out(
    partitions: Mapping[PartitionT, str],
    members: Mapping[MemberT, Collection[str]],
    owned: Mapping[MemberT, list[PartitionT]],
) -> bool:
    """Moves one partition to a member that has at least two less; False if there is none. So there is a last move."""
    by_load = sorted(members, key=lambda member: len(owned[member]))
    for taker in by_load:
        for giver in reversed(by_load):
            if len(owned[giver]) <= len(owned[taker]) + 1:
                break  # those that follow have less still

            for partition in owned[giver]:
                if partitions[partition] in members[taker]:
                    owned[giver].remove(partition)
                    owned[taker].append(partition)
                    return True

    return False
