"""What a consumer subscribes to: topics by name, topics by pattern, or single partitions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from aiokafka import TopicPartition as KafkaPartition

from rustmq_sdk.errors import ConfigurationError

_PARTITION = re.compile(r"(?P<topic>[^\[\]]+)\[(?P<partition>\d+)\]")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")
_RESERVED = (".", "..")
_NAMES = 'Use at most 249 letters, digits, dots, _ and -; a pattern begins with ^, and a partition is "orders[0]"'
_FIX = 'Name topics ("orders"), one pattern ("^orders-.*"), or partitions ("orders[0]", "orders[3]"), of one kind only'


@dataclass(frozen=True)
class Wanted:
    """One of the three is set."""

    names: Sequence[str] = ()
    pattern: re.Pattern[str] | None = None
    partitions: Sequence[KafkaPartition] = ()

    @property
    def topics(self) -> Sequence[str]:
        """The topics that have to exist; none for a pattern."""
        return sorted({*self.names, *(partition.topic for partition in self.partitions)})


def read_topics(topics: Sequence[str]) -> Wanted:
    """Tells the three apart: a pattern begins with ``^``, as librdkafka has it, and a partition is ``topic[number]``.

    Raises:
        ConfigurationError: kinds are mixed, a pattern is none, or Kafka allows no such name.
    """
    patterns = [topic for topic in topics if topic.startswith("^")]
    partitions = [match for topic in topics if (match := _PARTITION.fullmatch(topic))]
    if patterns and len(topics) == 1:
        return Wanted(pattern=_compiled(patterns[0]))

    if partitions and len(partitions) == len(topics):
        return Wanted(partitions=[KafkaPartition(found["topic"], int(found["partition"])) for found in partitions])

    if patterns or partitions:
        raise ConfigurationError("topics, patterns and partitions are mixed", field="topics", value=topics, fix=_FIX)

    for topic in topics:
        if not _NAME.fullmatch(topic) or topic in _RESERVED:
            raise ConfigurationError("that is no name for a topic", field="topics", value=topic, fix=_NAMES)

    return Wanted(names=list(topics))


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ConfigurationError(
            f"this is not a regular expression: {error}", field="topics", value=pattern, fix=_FIX
        ) from error
