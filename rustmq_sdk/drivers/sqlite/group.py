"""A group as the file has it: who is in it, who has which partition, and what should be."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from rustmq_sdk._balance import balance
from rustmq_sdk.drivers.sqlite.member_lock import PeerLock, lock_path
from rustmq_sdk.drivers.sqlite.topics import partitions_of
from rustmq_sdk.drivers.sqlite.transaction import Queries
from rustmq_sdk.errors import PermanentDriverError
from rustmq_sdk.values import TopicPartition

PROTOCOL = 1
"""How members share a group. Grows when an older release would get it wrong; see ``docs/sqlite-format.md``."""


class Claim(NamedTuple):
    """Who has a partition, for the how manieth time it was claimed, who shall have it next, and why it is free."""

    owner: bytes | None
    epoch: int
    wanted_by: bytes | None
    freed: str | None = None


class Member(NamedTuple):
    """A member's heartbeat, the topics it subscribed to, the inode number of its lock, and the protocol it follows."""

    beat: int
    topics: Sequence[str]
    lock: int | None
    protocol: int


class View(NamedTuple):
    """A group as it is: its members, its claims by partition id, and the partitions its members subscribed to."""

    members: Mapping[bytes, Member]
    claims: Mapping[int, Claim]
    partitions: Mapping[TopicPartition, int]

    def claim(self, partition: int) -> Claim:
        """Of a partition, also if nobody ever claimed it."""
        return self.claims.get(partition, _NOBODYS)

    def holder(self, partition: int) -> bytes | None:
        """Who has a partition, or is about to get it."""
        claim = self.claim(partition)
        return claim.wanted_by if claim.wanted_by in self.members else claim.owner

    def planned(self) -> dict[int, bytes | None]:
        """Who should have which partition; None where nobody wants it. Every member arrives at the same."""
        topics = {partition: tp.topic for tp, partition in sorted(self.partitions.items())}
        subscriptions = {member: state.topics for member, state in sorted(self.members.items())}
        owners = balance(topics, subscriptions, {partition: self.holder(partition) for partition in topics})
        return {partition: owners.get(partition) for partition in topics}

    def free(self, partition: int, me: bytes, held: Mapping[int, int]) -> bool:
        """Whether we may claim a partition: nobody in the group has it, or it is ours and we do not know it.

        The answer to a claim can be lost on its way, and then nobody reads the partition. It is claimed once more.
        """
        claim = self.claim(partition)
        return claim.owner not in self.members or (claim.owner == me and held.get(partition) != claim.epoch)

    def settled(self, me: bytes, held: Mapping[int, int]) -> bool:
        """Whether nothing is to be planned, and nothing is free for us to claim; ``held``: what we have, by epoch."""
        for partition, target in self.planned().items():
            if target != self.holder(partition) or (target == me and self.free(partition, me, held)):
                return False

        return True

    def locks(self, log: Path, me: bytes) -> dict[bytes, PeerLock]:
        """The locks of the others, as far as they have one."""
        return {
            id_: PeerLock(lock_path(log, id_), member.lock)
            for id_, member in self.members.items()
            if member.lock is not None and id_ != me
        }

    def check_protocol(self, log: Path, group: str, ended: Collection[bytes] = ()) -> None:
        """Raises ``PermanentDriverError`` if there is a member whose rules we do not know, besides those that ended."""
        protocols = (member.protocol for id_, member in self.members.items() if id_ not in ended)
        newest = max(protocols, default=PROTOCOL)
        if newest > PROTOCOL:
            raise PermanentDriverError(
                f"{log}: the group {group!r} has a member of a later release: it shares partitions by protocol "
                f"{newest}, this release knows up to {PROTOCOL}. Upgrade rustmq-sdk here, or stop that member first",
                slot="source",
                operation="join",
            )


_NOBODYS = Claim(None, 0, None)


def view(queries: Queries, group: str) -> View:
    """Reads a group."""
    members = {
        id_: Member(beat, _topics(topics) if protocol <= PROTOCOL else (), lock, protocol)
        for id_, beat, topics, lock, protocol in queries.rows(
            "SELECT id, beat, topics, lock, protocol FROM member WHERE consumer_group = ?", group
        )
    }
    claims = {
        partition: Claim(*claim)
        for partition, *claim in queries.rows(
            "SELECT partition, owner, epoch, wanted_by, freed FROM claim WHERE consumer_group = ?", group
        )
    }
    topics = sorted({topic for member in members.values() for topic in member.topics})
    return View(members, claims, partitions_of(queries, topics))


def _topics(encoded: str) -> Sequence[str]:
    return msgspec.json.decode(encoded, type=list[str])
