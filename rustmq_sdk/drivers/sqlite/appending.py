"""Storing messages: many appends, as one row for each partition. Runs inside the writer's transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from rustmq_sdk.drivers.sqlite.packing import Packed, encode, joined, rows_of
from rustmq_sdk.drivers.sqlite.sequences import Memory, Stored
from rustmq_sdk.drivers.sqlite.topics import Place, place_for_append
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


def store(transaction: Transaction, appends: Sequence[Append]) -> list[Answer]:
    """Stores the appends and answers them in their order.

    Those of one partition become one row, in their order. A sequence that was stored before is answered with what it
    was answered then. An append that has to be refused is answered with the error, and harms no other.
    """
    groups: dict[tuple[str, int], list[int]] = {}
    for at, append in enumerate(appends):
        groups.setdefault((append.topic, append.partition), []).append(at)

    answers: dict[int, Answer] = {}
    for (topic, number), group in groups.items():
        try:
            place = place_for_append(transaction, topic, number)
        except PermanentDriverError as error:
            answers.update(dict.fromkeys(group, error))
            continue

        stored = _store_in(transaction, place, [appends[at] for at in group])
        answers.update(zip(group, stored, strict=True))

    return [answers[at] for at in range(len(appends))]


def _store_in(transaction: Transaction, place: Place, appends: Sequence[Append]) -> list[Answer]:
    memory = Memory(transaction, place.id)
    fresh: list[Packed] = []
    end = place.next
    answers: list[Answer] = []
    for append in appends:
        sequence, length = append.sequence, append.messages.length
        try:
            known = None if sequence is None else memory.find(sequence, length)
        except PermanentDriverError as error:
            answers.append(error)
            continue

        if known is None:
            known = Stored(end, transaction.now_ms)
            fresh.append(append.messages)
            end += length
            if sequence is not None:
                memory.add(sequence, length, known)

        answers.append(known)

    if fresh:
        _insert(transaction, place, joined(fresh))
        memory.save(transaction)

    return answers


def _insert(transaction: Transaction, place: Place, messages: Packed) -> None:
    base, total, newest_ms = place.next, place.total, place.newest_ms
    for row in rows_of(messages):
        batch = encode(row, transaction.now_ms)
        total += len(batch.data)
        newest_ms = max(newest_ms, batch.last_ms)
        transaction.execute(
            "INSERT INTO batch (partition, base, count, first_ms, last_ms, newest_ms, total, largest, crc, data) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            place.id,
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

    transaction.execute(
        "UPDATE partition SET next = ?, total = ?, newest_ms = ? WHERE id = ?", base, total, newest_ms, place.id
    )
    transaction.changed.add(place.id)
