"""Who should have which partition: even, and with as few moves as possible."""

from __future__ import annotations

from collections.abc import Collection, Mapping


def plan(
    members: Mapping[bytes, Collection[str]], partitions: Mapping[int, str], holders: Mapping[int, bytes | None]
) -> dict[int, bytes | None]:
    """Assigns every partition to a member that subscribed to its topic; None where nobody did.

    Every member arrives at the same plan, and a plan carried out is a plan that stays as it is.

    Args:
        members: the topics each subscribed to.
        partitions: the topic of each.
        holders: who has a partition, or is about to get it.
    """
    chosen: dict[int, bytes | None] = dict.fromkeys(sorted(partitions))
    load = dict.fromkeys(sorted(members), 0)
    for partition, holder in holders.items():
        if holder is not None and partitions[partition] in members.get(holder, ()):
            chosen[partition] = holder
            load[holder] += 1

    def idlest(topic: str) -> bytes | None:
        able = [member for member in load if topic in members[member]]
        return min(able, key=load.__getitem__, default=None)

    moving = True
    while moving:
        moving = False
        for partition, holder in chosen.items():
            taker = idlest(partitions[partition])
            # Each move makes the loads more even, so there is a last one.
            if taker is not None and (holder is None or load[taker] + 1 < load[holder]):
                moving = True
                chosen[partition] = taker
                load[taker] += 1
                if holder is not None:
                    load[holder] -= 1

    return chosen
