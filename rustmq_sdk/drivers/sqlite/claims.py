"""Members, claims and committed positions of a group in the file.

Safety rests on the epoch alone: it grows with every claim, and a commit changes a row only where owner and epoch are
still the committer's. Each change is one ``BEGIN IMMEDIATE``, so all members see the same order of them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import msgspec

from rustmq_sdk.drivers.sqlite.plan import plan
from rustmq_sdk.drivers.sqlite.topics import partitions_of
from rustmq_sdk.drivers.sqlite.transaction import Queries, Transaction
from rustmq_sdk.drivers.sqlite.wake import group_key
from rustmq_sdk.values import Checkpoint, TopicPartition


class Claim(NamedTuple):
    """Who has a partition, for the how manieth time it was claimed, and who shall have it next."""

    owner: bytes | None
    epoch: int
    wanted_by: bytes | None


class Member(NamedTuple):
    """A member's heartbeat, and the topics it subscribed to."""

    beat: int
    topics: Sequence[str]


class Claimed(NamedTuple):
    """A partition that became ours."""

    tp: TopicPartition
    partition: int
    epoch: int


class View(NamedTuple):
    """A group as it is: its members, its claims by partition id, and the partitions its members subscribed to."""

    members: Mapping[bytes, Member]
    claims: Mapping[int, Claim]
    partitions: Mapping[TopicPartition, int]

    def holder(self, partition: int) -> bytes | None:
        """Who has a partition, or is about to get it."""
        claim = self.claims.get(partition, _NOBODYS)
        return claim.wanted_by if claim.wanted_by in self.members else claim.owner

    def planned(self) -> dict[int, bytes | None]:
        """Who should have which partition."""
        topics = {partition: tp.topic for tp, partition in self.partitions.items()}
        subscriptions = {member: state.topics for member, state in self.members.items()}
        return plan(subscriptions, topics, {partition: self.holder(partition) for partition in topics})

    def settled(self, me: bytes) -> bool:
        """Whether nothing is to be planned, and nothing is free for us to claim."""
        for partition, target in self.planned().items():
            claim = self.claims.get(partition, _NOBODYS)
            free = claim.owner not in self.members
            if target != self.holder(partition) or (free and target == me):
                return False

        return True


_NOBODYS = Claim(None, 0, None)


def view(queries: Queries, group: str) -> View:
    """Reads a group."""
    members = {
        id_: Member(beat, msgspec.json.decode(topics, type=list[str]))
        for id_, beat, topics in queries.rows("SELECT id, beat, topics FROM member WHERE consumer_group = ?", group)
    }
    claims = {
        partition: Claim(*claim)
        for partition, *claim in queries.rows(
            "SELECT partition, owner, epoch, wanted_by FROM claim WHERE consumer_group = ?", group
        )
    }
    topics = sorted({topic for member in members.values() for topic in member.topics})
    return View(members, claims, partitions_of(queries, topics))


def join(transaction: Transaction, group: str, member: bytes, topics: Collection[str]) -> None:
    """Makes ``member`` one of the group; it gets its partitions by :func:`step`."""
    seen(transaction, group)
    transaction.execute(
        "INSERT INTO member (consumer_group, id, topics) VALUES (?, ?, ?)",
        group,
        member,
        msgspec.json.encode(sorted(topics)).decode(),
    )
    transaction.changed.add(group_key(group))


def seen(transaction: Transaction, group: str) -> None:
    """The group is in use, now: retention spares what it has not settled."""
    transaction.execute(
        "INSERT INTO consumer_group (name, seen_ms) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET seen_ms = ?2",
        group,
        transaction.now_ms,
    )


def beat(transaction: Transaction, group: str, member: bytes) -> bool:
    """A sign of life. False if the others have taken us for dead."""
    seen(transaction, group)
    sql = "UPDATE member SET beat = beat + 1 WHERE consumer_group = ? AND id = ?"
    return transaction.execute(sql, group, member) == 1


def step(
    transaction: Transaction, group: str, me: bytes, dead: Mapping[bytes, int], overdue: Mapping[int, int]
) -> list[Claimed]:
    """Brings the group nearer to its plan, and claims what is free and ours by it.

    Args:
        transaction: to do it in.
        group: its name.
        me: our member id.
        dead: members to expire, with the beat they stopped at; who has beaten since is spared.
        overdue: partitions, with their epochs, whose owners were asked to release them and did not in time.
    """
    for member, beat_ in dead.items():
        sql = "SELECT 1 FROM member WHERE consumer_group = ? AND id = ? AND beat = ?"
        if transaction.row(sql, group, member, beat_):
            leave(transaction, group, member)

    for partition, epoch in overdue.items():
        release(transaction, group, None, {partition: epoch})

    state = view(transaction, group)
    claimed = []
    names = {partition: tp for tp, partition in state.partitions.items()}
    for partition, target in state.planned().items():
        claim = state.claims.get(partition, _NOBODYS)
        free = claim.owner not in state.members
        if free and target == me:
            claimed.append(Claimed(names[partition], partition, claim.epoch + 1))
            _write(transaction, group, partition, Claim(me, claim.epoch + 1, None))
        elif target != state.holder(partition) or (free and claim.owner is not None):
            wanted_by = None if target == claim.owner else target
            _write(transaction, group, partition, Claim(None if free else claim.owner, claim.epoch, wanted_by))

    return claimed


def release(transaction: Transaction, group: str, owner: bytes | None, epochs: Mapping[int, int]) -> None:
    """Frees partitions, as far as these are still their epochs; ``owner=None`` does it for somebody else."""
    for partition, epoch in epochs.items():
        transaction.execute(
            "UPDATE claim SET owner = NULL "
            "WHERE consumer_group = ?1 AND partition = ?2 AND epoch = ?3 AND (?4 IS NULL OR owner = ?4)",
            group,
            partition,
            epoch,
            owner,
        )

    transaction.changed.add(group_key(group))


def leave(transaction: Transaction, group: str, member: bytes) -> None:
    """Frees everything a member has, and forgets it. Its committed positions stay."""
    transaction.execute("UPDATE claim SET owner = NULL WHERE consumer_group = ? AND owner = ?", group, member)
    transaction.execute("UPDATE claim SET wanted_by = NULL WHERE consumer_group = ? AND wanted_by = ?", group, member)
    transaction.execute("DELETE FROM member WHERE consumer_group = ? AND id = ?", group, member)
    transaction.changed.add(group_key(group))


def commit(
    transaction: Transaction, group: str, owner: bytes, checkpoints: Sequence[tuple[int, int, Checkpoint]]
) -> list[bool]:
    """Writes (partition, epoch, checkpoint); False for each that is not ours any more."""
    return [
        transaction.execute(
            "UPDATE claim SET position = ?, extra = ? "
            "WHERE consumer_group = ? AND partition = ? AND owner = ? AND epoch = ?",
            checkpoint.offset,
            checkpoint.extra,
            group,
            partition,
            owner,
            epoch,
        )
        == 1
        for partition, epoch, checkpoint in checkpoints
    ]


def committed(queries: Queries, group: str, partition: int) -> Checkpoint | None:
    """What was written last, by whoever it was."""
    sql = "SELECT position, extra FROM claim WHERE consumer_group = ? AND partition = ? AND position IS NOT NULL"
    row = queries.row(sql, group, partition)
    return None if row is None else Checkpoint(*row)


def _write(transaction: Transaction, group: str, partition: int, claim: Claim) -> None:
    transaction.execute(
        "INSERT INTO claim (consumer_group, partition, owner, epoch, wanted_by) VALUES (?1, ?2, ?3, ?4, ?5) "
        "ON CONFLICT DO UPDATE SET owner = ?3, epoch = ?4, wanted_by = ?5",
        group,
        partition,
        *claim,
    )
    transaction.changed.add(group_key(group))
