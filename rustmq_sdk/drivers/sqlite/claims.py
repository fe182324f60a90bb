"""What changes a group in the file: members, claims and committed positions.

Safety rests on the epoch alone: it grows with every claim, and a commit changes a row only where owner and epoch are
still the committer's. Each change is one ``BEGIN IMMEDIATE``, so all members see the same order of them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from rustmq_sdk.drivers.sqlite.broadcast import group_key
from rustmq_sdk.drivers.sqlite.group import PROTOCOL, Claim, View, view
from rustmq_sdk.drivers.sqlite.transaction import Queries, Transaction
from rustmq_sdk.values import Checkpoint, TopicPartition


class Claimed(NamedTuple):
    """A partition that became ours, and why; see :meth:`rustmq_sdk.observe.Observer.on_rebalanced`."""

    tp: TopicPartition
    partition: int
    epoch: int
    reason: str


class Stepped(NamedTuple):
    """What became ours, and whom we have expired."""

    claimed: Sequence[Claimed]
    expired: Collection[bytes]


def join(
    transaction: Transaction,
    group: str,
    member: bytes,
    topics: Collection[str],
    *,
    log: Path,
    lock: int | None = None,
    ended: Collection[bytes] = (),
) -> None:
    """Makes ``member`` one of the group; it gets its partitions by :func:`step`.

    Args:
        transaction: to do it in.
        group: its name.
        member: its id.
        topics: what it subscribes to.
        log: the file, for errors.
        lock: the inode number of its lock.
        ended: members whose locks were free.

    Raises:
        PermanentDriverError: there is a member whose rules we do not know.
    """
    for each in ended:
        leave(transaction, group, each, freed="expired_lock")

    view(transaction, group).check_protocol(log, group)
    seen(transaction, group)
    transaction.execute(
        "INSERT INTO member (consumer_group, id, topics, lock, protocol) VALUES (?, ?, ?, ?, ?)",
        group,
        member,
        msgspec.json.encode(sorted(topics)).decode(),
        lock,
        PROTOCOL,
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
    transaction: Transaction,
    group: str,
    me: bytes,
    *,
    held: Mapping[int, int],
    ended: Collection[bytes] = (),
    silent: Mapping[bytes, int] = MappingProxyType({}),
    overdue: Mapping[int, int] = MappingProxyType({}),
) -> Stepped:
    """Brings the group nearer to its plan, and claims what is free and ours by it.

    Args:
        transaction: to do it in.
        group: its name.
        me: our member id.
        held: the partitions we have, with the epochs of our claims.
        ended: members to expire, since their locks were free.
        silent: members to expire, with the beat they stopped at; who has beaten since is spared.
        overdue: partitions, with their epochs, whose owners were asked to release them and did not in time.
    """
    expired = _expire(transaction, group, ended, silent)
    for partition, epoch in overdue.items():
        release(transaction, group, None, {partition: epoch}, freed="overdue")

    state = view(transaction, group)
    claimed = []
    names = {partition: tp for tp, partition in state.partitions.items()}
    for partition, target in state.planned().items():
        claim = state.claim(partition)
        free = state.free(partition, me, held)
        if free and target == me:
            why = _why_free(state, partition)
            epoch = (claim.epoch or _past_epoch(transaction, group)) + 1
            claimed.append(Claimed(names[partition], partition, epoch, why))
            _write(transaction, group, partition, Claim(me, epoch, None))
        elif target != state.holder(partition) or (free and claim.owner is not None):
            wanted_by = None if target == claim.owner else target
            owner = None if free else claim.owner
            _write(transaction, group, partition, claim._replace(owner=owner, wanted_by=wanted_by))

    return Stepped(claimed, expired)


def release(
    transaction: Transaction, group: str, owner: bytes | None, epochs: Mapping[int, int], *, freed: str = "moved"
) -> None:
    """Frees partitions, as far as these are still their epochs; ``owner=None`` does it for somebody else."""
    for partition, epoch in epochs.items():
        transaction.execute(
            "UPDATE claim SET owner = NULL, freed = ?5 "
            "WHERE consumer_group = ?1 AND partition = ?2 AND epoch = ?3 AND (?4 IS NULL OR owner = ?4)",
            group,
            partition,
            epoch,
            owner,
            freed,
        )

    transaction.changed.add(group_key(group))


def leave(transaction: Transaction, group: str, member: bytes, *, freed: str = "left") -> None:
    """Frees everything a member has, and forgets it. Its committed positions stay."""
    seen(transaction, group)
    transaction.execute(
        "UPDATE claim SET owner = NULL, freed = ? WHERE consumer_group = ? AND owner = ?", freed, group, member
    )
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


def _expire(
    transaction: Transaction, group: str, ended: Collection[bytes], silent: Mapping[bytes, int]
) -> Collection[bytes]:
    for member in ended:
        leave(transaction, group, member, freed="expired_lock")

    expired = set(ended)
    for member, beat_ in silent.items():
        sql = "SELECT 1 FROM member WHERE consumer_group = ? AND id = ? AND beat = ?"
        if transaction.row(sql, group, member, beat_):
            leave(transaction, group, member, freed="expired_beat")
            expired.add(member)

    return expired


def _why_free(state: View, partition: int) -> str:
    claim = state.claim(partition)
    if claim.epoch == 0:  # nobody ever had it
        return "topics_changed"

    # A row whose owner is not in the group: an older release, or somebody's hand, has removed the member.
    return claim.freed or "moved" if claim.owner is None else "expired"


def _past_epoch(transaction: Transaction, group: str) -> int:
    """The highest epoch of the group's partitions that were deleted."""
    row = transaction.row("SELECT past_epoch FROM consumer_group WHERE name = ?", group)
    return 0 if row is None else int(row[0])


def _write(transaction: Transaction, group: str, partition: int, claim: Claim) -> None:
    transaction.execute(
        "INSERT INTO claim (consumer_group, partition, owner, epoch, wanted_by, freed) VALUES (?1, ?2, ?3, ?4, ?5, ?6) "
        "ON CONFLICT DO UPDATE SET owner = ?3, epoch = ?4, wanted_by = ?5, freed = ?6",
        group,
        partition,
        *claim,
    )
    transaction.changed.add(group_key(group))
