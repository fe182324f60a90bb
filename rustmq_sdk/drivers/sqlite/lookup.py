"""Questions about partitions by name; one that does not exist (yet) is empty and starts at 0."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TypeVar

from rustmq_sdk.drivers.sqlite import claims
from rustmq_sdk.drivers.sqlite.reading import offset_at
from rustmq_sdk.drivers.sqlite.topics import Place, place_of
from rustmq_sdk.drivers.sqlite.transaction import Queries
from rustmq_sdk.values import Checkpoint, TopicPartition

T = TypeVar("T")


def starts(queries: Queries, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
    """The first offsets that are still there."""
    return _each(queries, partitions, lambda place: place.start, 0)


def ends(queries: Queries, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
    """One past the last offsets."""
    return _each(queries, partitions, lambda place: place.next, 0)


def offsets_at(
    queries: Queries, partitions: Collection[TopicPartition], timestamp_ms: int
) -> Mapping[TopicPartition, int]:
    """The first offsets not older than a time; the ends where there are none."""
    return _each(queries, partitions, lambda place: offset_at(queries, place.id, timestamp_ms), 0)


def committed(
    queries: Queries, partitions: Collection[TopicPartition], group: str
) -> Mapping[TopicPartition, Checkpoint | None]:
    """What the group has committed."""
    return _each(queries, partitions, lambda place: claims.committed(queries, group, place.id), None)


def _each(
    queries: Queries, partitions: Collection[TopicPartition], ask: Callable[[Place], T], missing: T
) -> Mapping[TopicPartition, T]:
    answers = {}
    for tp in partitions:
        place = None if tp.partition is None else place_of(queries, tp.topic, tp.partition)
        answers[tp] = missing if place is None else ask(place)

    return answers
