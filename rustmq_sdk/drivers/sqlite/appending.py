"""Storing messages: many appends, as one row for each partition. Runs inside the writer's transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from rustmq_sdk.drivers.sqlite.ends import End, Ends, Stale
from rustmq_sdk.drivers.sqlite.packing import Packed, encode, joined, rows_of
from rustmq_sdk.drivers.sqlite.remembered_appends import RememberedAppends, Stored
from rustmq_sdk.drivers.sqlite.topics import PartitionRow, partition_row_for_append
from rustmq_sdk.drivers.sqlite.transaction import Transaction
from rustmq_sdk.errors import PermanentDriverError
from rustmq_sdk.values import ProducerSequence

Answer: TypeAlias = Stored | PermanentDriverError


class Append(NamedTuple):
    """One append that waits to be stored."""

    topic: str
    partition: int
    messages: Packed
    sequence: ProducerSequence | None


def store(transaction: Transaction, appends: Sequence[Append], ends: Ends) -> list[Answer]:
    """Stores the appends and answers them in their order.

    Those of one partition become one row, in their order. A sequence that was stored before is answered with what it
    was answered then. An append that has to be refused is answered with the error, and harms no other.

    Raises:
        Stale: something in ``ends`` is not true any more. Roll back, forget them, and call again.
    """
    groups: dict[tuple[str, int], list[int]] = {}
    for at, append in enumerate(appends):
        groups.setdefault((append.topic, append.partition), []).append(at)

    answers: dict[int, Answer] = {}
    for (topic, number), group in groups.items():
        chosen = [appends[at] for at in group]
        try:
            stored = _store_in(transaction, topic, number, chosen, ends)
        except PermanentDriverError as error:
            answers.update(dict.fromkeys(group, error))
        else:
            answers.update(zip(group, stored, strict=True))

    return [answers[at] for at in range(len(appends))]


def _store_in(transaction: Transaction, topic: str, number: int, appends: Sequence[Append], ends: Ends) -> list[Answer]:
    remembered = ends.recall(topic, number)
    if remembered is None:
        partition = partition_row_for_append(transaction, topic, number)
        end = End(partition, RememberedAppends(partition.id))
    else:
        end = remembered

    answers, fresh = _assign(transaction, end, appends)
    if remembered is not None and len(fresh) < len(appends):
        raise Stale  # Something is repeated or refused, and that is not said without a look at the file.

    if fresh:
        end = End(_insert(transaction, end.partition, joined(fresh)), end.appends)
        end.appends.save(transaction)

    ends.note(topic, number, end)
    return answers


def _assign(transaction: Transaction, end: End, appends: Sequence[Append]) -> tuple[list[Answer], list[Packed]]:
    """The answers, and the messages that are not stored yet."""
    fresh: list[Packed] = []
    offset = end.partition.next
    answers: list[Answer] = []
    for append in appends:
        sequence, length = append.sequence, append.messages.length
        try:
            known = None if sequence is None else end.appends.find(transaction, sequence, length)
        except PermanentDriverError as error:
            answers.append(error)
            continue

        if known is None:
            known = Stored(offset, transaction.now_ms)
            fresh.append(append.messages)
            offset += length
            if sequence is not None:
                end.appends.add(sequence, length, known)

        answers.append(known)

    return answers, fresh


def _insert(transaction: Transaction, partition: PartitionRow, messages: Packed) -> PartitionRow:
    batches = [encode(row, transaction.now_ms) for row in rows_of(messages)]
    end = partition._replace(
        next=partition.next + messages.length,
        total=partition.total + sum(len(batch.data) for batch in batches),
        newest_ms=max(partition.newest_ms, *(batch.last_ms for batch in batches)),
    )
    # First of all: where somebody else has appended, the row below would not fit in.
    sql = "UPDATE partition SET next = ?, total = ?, newest_ms = ? WHERE id = ? AND next = ?"
    if not transaction.execute(sql, end.next, end.total, end.newest_ms, partition.id, partition.next):
        raise Stale

    base, total, newest_ms = partition.next, partition.total, partition.newest_ms
    for batch in batches:
        total += len(batch.data)
        newest_ms = max(newest_ms, batch.last_ms)
        transaction.execute(
            "INSERT INTO batch (partition, base, count, first_ms, last_ms, newest_ms, total, largest, crc, data) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            partition.id,
            base,
            batch.length,
            batch.first_ms,
            batch.last_ms,
            newest_ms,
            total,
            batch.largest,
            batch.crc,
            batch.data,
        )
        base += batch.length

    transaction.changed.add(partition.id)
    return end
