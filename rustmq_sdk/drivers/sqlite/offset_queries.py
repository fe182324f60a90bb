"""Questions about partitions by name; one that does not exist (yet) is empty and starts at 0."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TypeVar

from rustmq_sdk.drivers.sqlite import claims
from rustmq_sdk.drivers.sqlite.reading import offset_at
from rustmq_sdk.drivers.sqlite.topics import PartitionRow, partition_row
from rustmq_sdk.drivers.sqlite.transaction import Queries
from rustmq_sdk.values import Checkpoint, TopicPartition

T = TypeVar("T")


def starts(queries: Queries, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
    """The first offsets that are still there."""
    return _each(queries, partitions, lambda partition: partition.start, 0)


def ends(queries: Queries, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
    """One past the last offsets."""
    return _each(queries, partitions, lambda partition: partition.next, 0)


def offsets_at(
    queries: Queries, partitions: Collection[TopicPartition], timestamp_ms: int
) -> Mapping[TopicPartition, int]:
    """The first offsets not older than a time; the ends where there are none."""
    return _each(queries, partitions, lambda partition: offset_at(queries, partition.id, timestamp_ms), 0)


def committed(
    queries: Queries, partitions: Collection[TopicPartition], group: str
) -> Mapping[TopicPartition, Checkpoint | None]:
    """What the group has committed."""
    return _each(queries, partitions, lambda partition: claims.committed(queries, group, partition.id), None)


def _each(
    queries: Queries, partitions: Collection[TopicPartition], ask: Callable[[PartitionRow], T], missing: T
) -> Mapping[TopicPartition, T]:
    answers = {}
    for tp in partitions:
        partition = None if tp.partition is None else partition_row(queries, tp.topic, tp.partition)
        answers[tp] = missing if partition is None else ask(partition)

    return answers
