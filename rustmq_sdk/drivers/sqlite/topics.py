"""Topics and their partitions in the file."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

import msgspec

from rustmq_sdk.drivers.sqlite.broadcast import TOPICS, group_key
from rustmq_sdk.drivers.sqlite.options import Retention
from rustmq_sdk.drivers.sqlite.transaction import Queries, Transaction
from rustmq_sdk.errors import ConfigurationError, UnknownTopic
from rustmq_sdk.values import TopicPartition


class PartitionRow(NamedTuple):
    """A partition's row.

    Attributes:
        id: never used again, also when a topic of the same name is created later.
        start: the first offset that is still there.
        next: the offset of the next message.
        total: bytes of all batches ever stored.
        newest_ms: the highest timestamp ever stored.
    """

    id: int
    start: int
    next: int
    total: int
    newest_ms: int


_PARTITION_ROW = """
SELECT p.id, p.start, p.next, p.total, p.newest_ms
FROM topic AS t JOIN partition AS p ON p.topic = t.id WHERE t.name = ? AND p.number = ?
"""


def partition_row(queries: Queries, topic: str, partition: int) -> PartitionRow | None:
    """A partition's row; None if there is none."""
    row = queries.row(_PARTITION_ROW, topic, partition)
    return None if row is None else PartitionRow(*row)


def partition_row_for_append(transaction: Transaction, topic: str, partition: int) -> PartitionRow:
    """A partition's row; a topic nobody knows is created, with one partition.

    Raises:
        UnknownTopic: the topic has no such partition.
    """
    row = partition_row(transaction, topic, partition)
    if row is not None:
        return row

    if partition == 0 and partition_count(transaction, topic) is None:
        _create(transaction, topic, 1, Retention())
        row = partition_row(transaction, topic, partition)

    if row is None:
        count = partition_count(transaction, topic) or 0
        raise UnknownTopic(
            f"topic {topic!r} has {count} partition(s), from 0: there is no partition {partition}. "
            "Name an existing one, or create the topic with more",
            slot="sink",
            operation="append",
        )

    return row


def partition_count(queries: Queries, topic: str) -> int | None:
    """The number of a topic's partitions; None if there is no such topic."""
    row = queries.row("SELECT partitions FROM topic WHERE name = ?", topic)
    return None if row is None else int(row[0])


def partitions_for_send(transaction: Transaction, topic: str) -> int:
    """The number of a topic's partitions; a topic nobody knows is created, with one."""
    known = partition_count(transaction, topic)
    if known is None:
        _create(transaction, topic, 1, Retention())

    return known or 1


def ensure(
    transaction: Transaction, topic: str, partitions: int, settings: Retention, given: Collection[str]
) -> Retention | None:
    """Creates a topic, or gives one that exists with as many partitions those settings that were ``given``.

    Returns the settings that it had, if they are others now. What was not given stays as it is: a program that only
    wants the topic to exist must not lift the retention that somebody has set.

    Raises:
        ConfigurationError: it exists with another number of partitions, or there would be none.
    """
    if partitions < 1:
        raise ConfigurationError("a topic has partitions", field="partitions", value=partitions, fix="Give 1 or more")

    row = transaction.row("SELECT partitions, retention_age, retention_bytes FROM topic WHERE name = ?", topic)
    if row is None:
        _create(transaction, topic, partitions, settings)
        return None

    known, age, size = row
    if known != partitions:
        raise ConfigurationError(
            f"topic {topic!r} exists with {known} partition(s)",
            field="partitions",
            value=partitions,
            fix="Keys would move to other partitions: use another name, or delete the topic first",
        )

    before = Retention(retention_age=age, retention_bytes=size)
    after = msgspec.structs.replace(before, **{name: getattr(settings, name) for name in given})
    if after == before:
        return None

    sql = "UPDATE topic SET retention_age = ?2, retention_bytes = ?3 WHERE name = ?1"
    transaction.execute(sql, topic, after.retention_age, after.retention_bytes)
    return before


def _create(transaction: Transaction, topic: str, partitions: int, settings: Retention) -> None:
    transaction.execute(
        "INSERT INTO topic (name, partitions, retention_age, retention_bytes) VALUES (?, ?, ?, ?)",
        topic,
        partitions,
        settings.retention_age,
        settings.retention_bytes,
    )
    for number in range(partitions):
        transaction.execute(
            "INSERT INTO partition (topic, number) SELECT id, ?2 FROM topic WHERE name = ?1", topic, number
        )

    transaction.changed.add(TOPICS)


def delete(transaction: Transaction, topic: str) -> None:
    """Deletes a topic, its messages, and what groups remember of it, but for the highest epoch.

    Raises:
        UnknownTopic: there is none.
    """
    for partition in partitions_of(transaction, [topic]).values():
        groups = transaction.rows("SELECT consumer_group FROM claim WHERE partition = ?", partition)
        transaction.changed.update(group_key(group) for (group,) in groups)
        # A topic of the same name may follow, and fences must not go back while the group lives.
        transaction.execute(
            "UPDATE consumer_group SET past_epoch = max(past_epoch, c.epoch) FROM claim AS c "
            "WHERE c.consumer_group = name AND c.partition = ?",
            partition,
        )
        transaction.execute("DELETE FROM batch WHERE partition = ?", partition)
        transaction.execute("DELETE FROM producer WHERE partition = ?", partition)
        transaction.execute("DELETE FROM claim WHERE partition = ?", partition)
        transaction.execute("DELETE FROM partition WHERE id = ?", partition)

    if not transaction.execute("DELETE FROM topic WHERE name = ?", topic):
        raise UnknownTopic(
            f"there is no topic {topic!r}. topics() has the names", slot="admin", operation="delete_topic"
        )

    transaction.changed.add(TOPICS)


def counts(queries: Queries) -> dict[str, int]:
    """All topics and how many partitions each has."""
    return dict(queries.rows("SELECT name, partitions FROM topic ORDER BY name"))


def missing(wanted: Collection[str], found: Iterable[TopicPartition]) -> dict[str, str]:
    """What is wanted and was not found, and what to say of each."""
    existing = {tp.topic for tp in found}
    return {
        topic: f"topic {topic!r} does not exist; waiting until somebody creates it or sends to it"
        for topic in sorted(wanted)
        if topic not in existing
    }


def partitions_of(queries: Queries, topics: Collection[str]) -> dict[TopicPartition, int]:
    """The ids of all partitions of those topics that exist."""
    found = {}
    for topic in topics:
        sql = "SELECT p.number, p.id FROM topic AS t JOIN partition AS p ON p.topic = t.id WHERE t.name = ?"
        found.update({TopicPartition(topic, number): id_ for number, id_ in queries.rows(sql, topic)})

    return found
