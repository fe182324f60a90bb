"""Deleting what is too old or too much. Runs inside the writer's transaction."""

from __future__ import annotations

from typing import NamedTuple

from rustmq_sdk.drivers.sqlite.options import SqliteOptions
from rustmq_sdk.drivers.sqlite.transaction import Transaction

GROUP_ACTIVE_MS = 7 * 24 * 3600 * 1000
"""A group is active until it was not seen for this long: the broker default of ``offsets.retention.minutes``."""

ROWS_AT_ONCE = 100
"""Batches deleted in one transaction at most, of at most 1 MiB each, so that nobody waits long for it."""


class _Due(NamedTuple):
    partition: int
    start: int
    next: int
    total: int
    age: float | None
    bytes: int | None


def enforce(transaction: Transaction, options: SqliteOptions) -> bool:
    """Deletes whole batches from the front of the partitions. True if there is more to delete."""
    rows = transaction.rows(
        "SELECT p.id, p.start, p.next, p.total, coalesce(t.retention_age, ?1), coalesce(t.retention_bytes, ?2) "
        "FROM partition AS p JOIN topic AS t ON t.id = p.topic "
        "WHERE p.start < p.next AND coalesce(t.retention_age, ?1, t.retention_bytes, ?2) IS NOT NULL",
        options.retention_age,
        options.retention_bytes,
    )
    room = ROWS_AT_ONCE
    for due in map(_Due._make, rows):
        keep = _first_to_keep(transaction, due)
        if not options.retention_overtakes:
            keep = min(keep, _unsettled(transaction, due.partition, keep))

        if keep > due.start:
            room -= _delete(transaction, due.partition, keep, room)
            if room == 0:
                return True

    return False


def forget_producers(transaction: Transaction) -> None:
    """Drops the sequence numbers of producers that have been silent for as long as inactive groups are kept."""
    transaction.execute("DELETE FROM producer WHERE seen_ms < ?", transaction.now_ms - GROUP_ACTIVE_MS)


def _first_to_keep(transaction: Transaction, due: _Due) -> int:
    """The base of the first batch that is young enough, and inside the size."""
    keep = due.start
    first_batch = "SELECT base FROM batch WHERE partition = ? AND base >= ? AND {} ORDER BY base LIMIT 1"
    if due.age is not None:
        oldest_ms = transaction.now_ms - round(due.age * 1000)
        row = transaction.row(first_batch.format("last_ms >= ?"), due.partition, keep, oldest_ms)
        keep = due.next if row is None else row[0]

    if due.bytes is not None:
        row = transaction.row(first_batch.format("total > ?"), due.partition, keep, due.total - due.bytes)
        keep = due.next if row is None else row[0]

    return keep


def _unsettled(transaction: Transaction, partition: int, keep: int) -> int:
    """The lowest offset that an active group has not settled; ``keep`` if there is none below."""
    row = transaction.row(
        "SELECT min(coalesce(c.position, 0)) FROM claim AS c JOIN consumer_group AS g ON g.name = c.consumer_group "
        "WHERE c.partition = ? AND g.seen_ms >= ?",
        partition,
        transaction.now_ms - GROUP_ACTIVE_MS,
    )
    return keep if row is None or row[0] is None else int(row[0])


def _delete(transaction: Transaction, partition: int, keep: int, room: int) -> int:
    deleted = transaction.execute(
        "DELETE FROM batch WHERE rowid IN "
        "(SELECT rowid FROM batch WHERE partition = ? AND base < ? AND base + count <= ? ORDER BY base LIMIT ?)",
        partition,
        keep,
        keep,
        room,
    )
    transaction.execute(
        "UPDATE partition SET start = coalesce((SELECT min(base) FROM batch WHERE partition = ?1), next) WHERE id = ?1",
        partition,
    )
    return deleted
