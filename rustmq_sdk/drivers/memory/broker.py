"""The broker in this process: topics, groups, queues, state stores, and the hooks with which tests play fate."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager

from rustmq_sdk.drivers.memory.groups import Group, Member
from rustmq_sdk.drivers.memory.letters import LetterBox
from rustmq_sdk.drivers.memory.log import PartitionLog
from rustmq_sdk.drivers.memory.queues import Queue
from rustmq_sdk.drivers.memory.remembered_appends import RememberedAppends
from rustmq_sdk.drivers.memory.stores import MemoryStateStore
from rustmq_sdk.errors import ConfigurationError, ConsumerStateError, UnknownTopic
from rustmq_sdk.values import OutgoingMessage, TopicPartition


class MemoryBroker:
    """Everything a broker keeps, in this process, and all it does is synchronous.

    Used by one event loop at a time: see :meth:`opened`. What drivers keep in it outlives them and their loop.

    Args:
        max_messages: most records a partition keeps; older ones go. None keeps all.
        wall_clock: seconds since the epoch, for messages without a timestamp.
    """

    def __init__(self, *, max_messages: int | None = None, wall_clock: Callable[[], float] = time.time) -> None:
        self.max_messages = max_messages
        self.letters: dict[str, LetterBox] = defaultdict(LetterBox)
        self.state: dict[str, MemoryStateStore] = defaultdict(MemoryStateStore)
        self.remembered_appends = RememberedAppends()
        self._wall_clock = wall_clock
        self._topics: dict[str, Sequence[PartitionLog]] = {}
        self._groups: dict[str, Group] = {}
        self._private: dict[Group, None] = {}
        self._queues: dict[tuple[str, str], Queue] = {}
        self._users = 0
        self._thread: int | None = None
        self._closed_at = 0.0

    # Topics

    def topics(self) -> dict[str, int]:
        """Names and partition counts."""
        return {name: len(logs) for name, logs in self._topics.items()}

    def partition_count(self, topic: str) -> int | None:
        """How many a topic has; None if there is no such topic."""
        logs = self._topics.get(topic)
        return None if logs is None else len(logs)

    def create_topic(self, name: str, partitions: int = 1) -> None:
        """Creates a topic, or finds it as asked for; raises ``ConfigurationError`` otherwise."""
        _check_topic(name, partitions)
        existing = self._topics.get(name)
        if existing is not None and len(existing) != partitions:
            raise ConfigurationError(
                f"topic {name!r} exists with {len(existing)} partitions",
                field="partitions",
                value=partitions,
                fix="Delete the topic first, or ask for as many partitions as it has",
            )

        if existing is None:
            self._topics[name] = [PartitionLog(TopicPartition(name, number)) for number in range(partitions)]
            for group in self._all_groups():
                group.rebalance()

    def delete_topic(self, name: str) -> None:
        """Deletes a topic, its messages and everybody's positions in it; raises ``UnknownTopic``."""
        self.logs(name, slot="admin", operation="delete_topic")
        del self._topics[name]
        self.remembered_appends.forget(name)
        for key in [key for key in self._queues if key[1] == name]:
            del self._queues[key]

        for group in self._all_groups():
            group.forget(name)

    def logs(self, topic: str, *, slot: str, operation: str) -> Sequence[PartitionLog]:
        """The partitions of a topic; raises ``UnknownTopic``."""
        logs = self._topics.get(topic)
        if logs is None:
            raise UnknownTopic(f"there is no topic {topic!r}. topics() has the names", slot=slot, operation=operation)

        return logs

    def log(self, tp: TopicPartition, *, slot: str = "source", operation: str) -> PartitionLog:
        """One partition; raises ``UnknownTopic`` also where the topic has fewer partitions."""
        logs = self.logs(tp.topic, slot=slot, operation=operation)
        if tp.partition is None or not 0 <= tp.partition < len(logs):
            raise UnknownTopic(
                f"topic {tp.topic!r} has partitions 0 to {len(logs) - 1}, not {tp.partition}",
                slot=slot,
                operation=operation,
            )

        return logs[tp.partition]

    def missing(self, topics: Collection[str]) -> dict[str, str]:
        """Those topics that do not exist, and what to say of each."""
        return {
            topic: f"topic {topic!r} does not exist; waiting until somebody creates it or sends to it"
            for topic in sorted(topics)
            if topic not in self._topics
        }

    def partitions(self, topics: Collection[str]) -> Sequence[TopicPartition]:
        """All partitions of those topics that exist, in order."""
        return [log.tp for topic in sorted(topics) for log in self._topics.get(topic, ())]

    # Messages

    def append(self, tp: TopicPartition, messages: Iterable[OutgoingMessage]) -> list[tuple[int, int]]:
        """Appends and returns offsets and timestamps."""
        log = self.log(tp, slot="sink", operation="append")
        now = int(self._wall_clock() * 1000)
        stored = []
        for message in messages:
            timestamp = now if message.timestamp is None else message.timestamp
            headers = tuple(message.headers)
            stored.append((log.append(message.payload, message.key, headers, timestamp), timestamp))

        if self.max_messages is not None and len(log) > self.max_messages:
            log.truncate(log.end - self.max_messages)

        log.announce()
        return stored

    # Readers

    def group(self, name: str) -> Group:
        """The group of this name, with its committed positions; lasts as long as the broker."""
        if name not in self._groups:
            self._groups[name] = Group(name, self.partitions)

        return self._groups[name]

    @contextmanager
    def private_group(self, kind: str) -> Iterator[Group]:
        """A group of one: of a consumer without a group, or of one that shares messages and not partitions."""
        group = Group("", self.partitions if kind == "log" else self._whole_topics)
        self._private[group] = None
        try:
            yield group
        finally:
            del self._private[group]

    def queue(self, group: str | None, topic: str) -> Queue:
        """What ``group`` has still to do of ``topic``, from its first message on; raises ``UnknownTopic``."""
        log = self.log(TopicPartition(topic, 0), operation="fetch")
        if group is None:
            return Queue(log)

        if (group, topic) not in self._queues:
            self._queues[group, topic] = Queue(log)

        return self._queues[group, topic]

    # Life

    def opened(self, thread: int, now: float) -> None:
        """A driver begins to use the broker, on this thread, at this time of its loop.

        Raises:
            ConsumerStateError: another thread uses it; nothing here is locked.
        """
        if self._users and thread != self._thread:
            raise ConsumerStateError(
                "this memory broker is open in another thread, and its events belong to one loop. "
                "Give each thread a broker of its own name, or use sqlite:///"
            )

        if not self._users:
            # Loops count time from different origins. While nobody has the broker open its time stands still.
            for queue in self._queues.values():
                queue.shift(now - self._closed_at)

        self._thread = thread
        self._users += 1

    def closed(self, now: float) -> None:
        """A driver has done."""
        self._users -= 1
        self._closed_at = now

    # Fate

    def truncate(self, topic: str, partition: int, before: int) -> None:
        """Removes what is older than offset ``before``, settled or not, as retention does."""
        self.log(TopicPartition(topic, partition), slot="admin", operation="truncate").truncate(before)

    def compact(self, topic: str, partition: int, offsets: Iterable[int]) -> None:
        """Removes single records and leaves holes, as compaction does."""
        self.log(TopicPartition(topic, partition), slot="admin", operation="compact").compact(offsets)

    def skip(self, topic: str, partition: int, count: int = 1) -> None:
        """Leaves ``count`` offsets at the end without a record, as transaction markers do."""
        self.log(TopicPartition(topic, partition), slot="admin", operation="skip").skip(count)

    def append_broken(self, topic: str, partition: int, raw: bytes, error: Exception | None = None) -> int:
        """Appends a record that no reader can decode; returns its offset."""
        log = self.log(TopicPartition(topic, partition), slot="sink", operation="append")
        offset = log.append_broken(raw, error or ValueError("not a record"))
        log.announce()
        return offset

    def expire(self, group: str, member: Member | None = None) -> None:
        """Takes everything from a member (the oldest) of a group without asking, as from one that fell silent.

        It is told ``lost`` and joins again. Does nothing if there is none.
        """
        members = [member] if member else self.group(group).members
        for silent in members[:1]:
            self.group(group).expire(silent)

    def end_leases(
        self, group: str, topic: str, payloads: Collection[bytes | None] | None = None, *, again: bool = True
    ) -> None:
        """Ends the leases of a queue's messages, as if their time had run out: all of them, or those of ``payloads``.

        Whoever has such a message is told when it settles it or renews its lease. It comes again when its time had been
        up; with ``again=False`` never: somebody else has it.
        """
        self.queue(group, topic).end_leases(payloads, again=again)

    def rebalance(self, group: str) -> None:
        """Makes all members of a group give up everything and get it back, as an eager rebalance does."""
        self.group(group).rebalance_eagerly()

    def _all_groups(self) -> Sequence[Group]:
        return [*self._groups.values(), *self._private]

    def _whole_topics(self, topics: Collection[str]) -> Sequence[TopicPartition]:
        return [TopicPartition(topic, None) for topic in sorted(topics) if topic in self._topics]


def _check_topic(name: str, partitions: int) -> None:
    if not name:
        raise ConfigurationError("a topic needs a name", field="topic", value=name, fix="Give it at least one letter")

    if partitions < 1:
        raise ConfigurationError(
            "a topic has at least one partition", field="partitions", value=partitions, fix="Give a number >= 1"
        )
