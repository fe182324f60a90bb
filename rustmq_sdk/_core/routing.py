"""From messages of one topic to the partitions they go to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rustmq_sdk._core.outbox import PartitionQueue, PendingSend, Unflushed
from rustmq_sdk._core.outgoing import keyless
from rustmq_sdk._core.partitioner import partition_for
from rustmq_sdk.errors import ConfigurationError
from rustmq_sdk.values import OutgoingMessage


class Submission(NamedTuple):
    """What one call hands over, before it is divided among partitions.

    Attributes:
        checked: the number of partitions was asked for after the call was made.
    """

    messages: Sequence[OutgoingMessage]
    pending: PendingSend | None
    born: float
    unflushed: Unflushed
    checked: bool = False


class Share(NamedTuple):
    """The messages of a submission that go to one partition, and which ones of it they are."""

    partition: int
    messages: Sequence[OutgoingMessage]
    places: Sequence[int]


class Topic:
    """A topic as its producer sees it.

    Attributes:
        partitions: how many there are; None while that is being asked.
        asked_at: when that was asked.
        queues: by partition, those that were used.
        waiting: what was handed over meanwhile, in order.
    """

    def __init__(self, name: str, start: int) -> None:
        self.name = name
        self.partitions: int | None = None
        self.asked_at = 0.0
        self.queues: dict[int, PartitionQueue] = {}
        self.waiting: list[Submission] = []
        self.asking = False
        self._sticky = start

    def divide(self, messages: Sequence[OutgoingMessage], batch_size: int) -> list[Share]:
        """The shares of all partitions, none larger than ``batch_size``, in an order that keeps each partition's.

        A message goes to the partition it names, else to the one its key hashes to. The others stick to one partition
        until its batch is full or taken (:meth:`move_on`), and then to the next: a few full batches instead of many
        small ones (Apache Kafka, KIP-480).

        Raises:
            ConfigurationError: a message names a partition that does not exist.
        """
        count = self.partitions
        assert count is not None
        size = len(messages)
        if keyless(messages):
            return self._divide_keyless(messages, batch_size)

        if count == 1 and not any(message.partition for message in messages):
            return [
                Share(0, messages[first : first + batch_size], range(first, min(first + batch_size, size)))
                for first in range(0, size, batch_size)
            ]

        return self._divide_each(messages, batch_size, count)

    def queue_for(self, message: OutgoingMessage) -> PartitionQueue | None:
        """Where a message would go that is sent now; None if nothing was sent there yet, or that is not known."""
        if self.partitions is None:
            return None

        partition = message.partition
        if partition is None:
            key = message.key
            partition = self._sticky % self.partitions if key is None else partition_for(key, self.partitions)

        return self.queues.get(partition)

    def move_on(self, partition: int) -> None:
        """The batch of ``partition`` is on its way: messages without a key go to the next one."""
        if self.partitions is not None and self._sticky % self.partitions == partition:
            self._sticky += 1

    def _divide_keyless(self, messages: Sequence[OutgoingMessage], batch_size: int) -> list[Share]:
        assert self.partitions is not None
        size = len(messages)
        shares = []
        first = 0
        while first < size:
            partition = self._sticky % self.partitions
            queue = self.queues.get(partition)
            # What is queued there already counts: a batch that is full is on its way as far as we are concerned.
            room = batch_size - (queue.count % batch_size if queue is not None else 0)
            end = min(first + room, size)
            whole = end - first == size
            shares.append(Share(partition, messages if whole else messages[first:end], range(first, end)))
            if end - first == room:
                self._sticky += 1

            first = end

        return shares

    def _divide_each(self, messages: Sequence[OutgoingMessage], batch_size: int, count: int) -> list[Share]:
        sticky = self._sticky % count
        by_partition: dict[int, tuple[list[OutgoingMessage], list[int]]] = {}
        shares = []
        for place, message in enumerate(messages):
            partition = self._choose(message, sticky, count)
            group, places = by_partition.setdefault(partition, ([], []))
            group.append(message)
            places.append(place)
            if len(group) == batch_size:
                shares.append(Share(partition, group, places))
                del by_partition[partition]

        shares.extend(Share(partition, group, places) for partition, (group, places) in by_partition.items())
        return shares

    def _choose(self, message: OutgoingMessage, sticky: int, count: int) -> int:
        if message.partition is None:
            return sticky if message.key is None else partition_for(message.key, count)

        if message.partition < count:
            return message.partition

        raise ConfigurationError(
            f"topic {self.name!r} has partitions 0 to {count - 1}",
            field="partition",
            value=message.partition,
            fix="Leave it out to have it chosen by key, or give one of these",
        )
