"""Deleting what is too old or too much. Runs inside the writer's transaction."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, takewhile
from pathlib import Path
from typing import NamedTuple

from rustmq_sdk.drivers.sqlite.member_lock import PeerLock, lock_path
from rustmq_sdk.drivers.sqlite.options import SqliteOptions
from rustmq_sdk.drivers.sqlite.transaction import Transaction

GROUP_ACTIVE_MS = 7 * 24 * 3600 * 1000
"""A group is active until it was not seen for this long: the broker default of ``offsets.retention.minutes``. By the
wall clock, which may be set: a group with a member whose process is there is active whatever the clock says."""

BYTES_AT_ONCE = 16 * 1024 * 1024
"""Deleted in one transaction at most, so that nobody waits long for it: 10 ms, since SQLite visits each page."""

ROW_BYTES = 128 * 1024
"""What a batch counts for besides its size: it makes work however small it is."""


class _Due(NamedTuple):
    partition: int
    start: int
    total: int
    age: float | None
    bytes: int | None


class _Batch(NamedTuple):
    end: int
    last_ms: int
    total: int
    size: int


def enforce(transaction: Transaction, options: SqliteOptions, log: Path) -> bool:
    """Deletes whole batches from the front of the partitions of ``log``. True if there is more to delete."""
    rows = transaction.rows(
        "SELECT p.id, p.start, p.total, coalesce(t.retention_age, ?1), coalesce(t.retention_bytes, ?2) "
        "FROM partition AS p JOIN topic AS t ON t.id = p.topic "
        "WHERE p.start < p.next AND coalesce(t.retention_age, ?1, t.retention_bytes, ?2) IS NOT NULL",
        options.retention_age,
        options.retention_bytes,
    )
    room = BYTES_AT_ONCE
    for due in map(_Due._make, rows):
        gone = _gone(transaction, due, None if options.retention_overtakes else log)
        fitting = _fitting(gone, room)
        if fitting:
            _delete(transaction, due.partition, fitting[-1].end)
            room -= sum(batch.size + ROW_BYTES for batch in fitting)

        if len(fitting) < len(gone) or room <= 0:
            return True

    return False


def forget_producers(transaction: Transaction) -> None:
    """Drops the sequence numbers of producers that have been silent for as long as inactive groups are kept."""
    transaction.execute("DELETE FROM producer WHERE seen_ms < ?", transaction.now_ms - GROUP_ACTIVE_MS)


def _gone(transaction: Transaction, due: _Due, spares_groups_of: Path | None) -> list[_Batch]:
    """What is to be deleted, from the front; not more than a transaction takes."""
    oldest_ms = -math.inf if due.age is None else transaction.now_ms - round(due.age * 1000)
    spare = due.total if due.bytes is None else due.bytes
    front = transaction.rows(
        "SELECT base + count, last_ms, total, length(data) FROM batch WHERE partition = ? ORDER BY base LIMIT ?",
        due.partition,
        BYTES_AT_ONCE // ROW_BYTES + 1,
    )
    found = takewhile(
        lambda batch: batch.last_ms < oldest_ms or batch.total <= due.total - spare, map(_Batch._make, front)
    )
    batches = list(found)
    if not batches or spares_groups_of is None:
        return batches

    unsettled = _unsettled(transaction, spares_groups_of, due.partition, batches[-1].end)
    return [batch for batch in batches if batch.end <= unsettled]


def _fitting(gone: Sequence[_Batch], room: int) -> Sequence[_Batch]:
    """As many as there is room for, and one in any case."""
    used = list(accumulate(batch.size + ROW_BYTES for batch in gone))
    return gone[: max(bisect_right(used, room), 1)]


def _unsettled(transaction: Transaction, log: Path, partition: int, keep: int) -> int:
    """The lowest offset that an active group has not settled; ``keep`` if there is none below."""
    behind = transaction.rows(
        "SELECT coalesce(c.position, 0) AS unsettled, g.name, g.seen_ms "
        "FROM claim AS c JOIN consumer_group AS g ON g.name = c.consumer_group "
        "WHERE c.partition = ? AND unsettled < ? ORDER BY unsettled",
        partition,
        keep,
    )
    oldest_ms = transaction.now_ms - GROUP_ACTIVE_MS
    active = (int(at) for at, group, seen_ms in behind if seen_ms >= oldest_ms or _is_there(transaction, log, group))
    return next(active, keep)


def _is_there(transaction: Transaction, log: Path, group: str) -> bool:
    """Whether a process lives that is a member of it; a member without a lock is known by its heartbeat alone."""
    members = transaction.rows("SELECT id, lock FROM member WHERE consumer_group = ? AND lock IS NOT NULL", group)
    return any(PeerLock(lock_path(log, id_), inode).held() for id_, inode in members)


def _delete(transaction: Transaction, partition: int, keep: int) -> None:
    transaction.execute("DELETE FROM batch WHERE partition = ? AND base < ?", partition, keep)
    transaction.execute(
        "UPDATE partition SET start = coalesce((SELECT min(base) FROM batch WHERE partition = ?1), next) WHERE id = ?1",
        partition,
    )
