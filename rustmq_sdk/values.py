"""The small values that travel between users, the runtime and the drivers."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Any, NamedTuple, TypeAlias, overload

from rustmq_sdk._places import place

Headers: TypeAlias = Sequence[tuple[str, bytes | None]]
"""Headers in order, repeated names allowed, as Kafka has them. Empty is ``()``."""


def size_of(payload: bytes | None, key: bytes | None, headers: Headers) -> int:
    """Bytes of one message's payload, key and headers, names included: what every budget of bytes counts."""
    size = len(payload or b"") + len(key or b"")
    for name, value in headers:
        size += len(name) + len(value or b"")

    return size


class TopicPartition(NamedTuple):
    """A topic and one of its partitions; ``partition`` is None on queues, which have none."""

    topic: str
    partition: int | None

    def __str__(self) -> str:
        return place(self.topic, self.partition)

    def at(self, mark: int | str | None) -> str:
        """Names one message: ``topic[partition]@offset``, or ``topic@name`` on queues."""
        return place(self.topic, self.partition, mark)


class Assignment:
    """A partition for as long as this consumer has it; compared by identity.

    Everything in flight belongs to exactly one assignment, so that what was delivered before a rebalance or a seek can
    never be mistaken for what came after it.

    Attributes:
        tp: the topic and partition.
        epoch: grows with every change of owner and with every local restart of the partition (a seek):
            driver generation x 65,536 + local restarts. None where the driver has no generations.
    """

    __slots__ = ("epoch", "tp")

    def __init__(self, tp: TopicPartition, epoch: int | None) -> None:
        self.tp = tp
        self.epoch = epoch

    @property
    def topic(self) -> str:
        """The topic's name."""
        return self.tp.topic

    @property
    def partition(self) -> int | None:
        """The partition's number; None on queues."""
        return self.tp.partition

    def __repr__(self) -> str:
        return f"<Assignment {self.tp} epoch {self.epoch}>"


class Checkpoint(NamedTuple):
    """A committed position and what the runtime wants remembered beside it.

    Attributes:
        offset: the watermark: every message below it is settled. The next message to handle.
        extra: opaque to drivers; what is settled above the watermark, and more. Empty most of the time.
    """

    offset: int
    extra: bytes = b""


class CommitOutcome(enum.Enum):
    """What became of the commit of one partition."""

    COMMITTED = "committed"
    FENCED = "fenced"
    """Somebody else owns the partition now. Not an error of the backend: never retried."""
    RETRY = "retry"
    """Not written, for a reason that may pass (a rebalance is going on)."""


class AckResult(enum.Enum):
    """What has become of a message that was settled."""

    RECORDED = "recorded"
    """The message is settled here, and the next commit tells the broker."""
    DURABLE = "durable"
    """The message is settled, and the broker has confirmed it. Only with ``durable=True``."""
    PENDING = "pending"
    """The message is settled here, and the broker has not confirmed it within ``commit_timeout``. It is tried again."""
    DUPLICATE = "duplicate"
    """This delivery was settled before, or a later attempt of the message has taken its place."""
    STALE = "stale"
    """The partition was lost or moved by a seek meanwhile: the message is, or will be, delivered again."""


class SentMessage(NamedTuple):
    """Where a message was stored. ``timestamp`` is in milliseconds since the epoch."""

    topic: str
    partition: int | None
    offset: int | None
    timestamp: int


class OutgoingMessage(NamedTuple):
    """A message on its way to a topic.

    Attributes:
        payload: the body; None is a tombstone.
        key: messages of one key go to one partition, in order.
        headers: names and values, in order.
        partition: overrides the choice by key.
        timestamp: milliseconds since the epoch; None is the time of sending.
    """

    payload: bytes | None
    key: bytes | None = None
    headers: Headers = ()
    partition: int | None = None
    timestamp: int | None = None


class Payloads(Sequence[OutgoingMessage]):
    """Messages that are nothing but their payloads, without key, headers, partition and timestamp.

    Most batches are like this, and then one column says everything: each message is made when somebody asks for it. A
    sink that stores payloads side by side takes :attr:`bodies` and asks for none.

    Attributes:
        bodies: the payloads, known to be bytes or None.
    """

    __slots__ = ("bodies",)

    def __init__(self, bodies: Sequence[bytes | None]) -> None:
        self.bodies = bodies

    def __len__(self) -> int:
        return len(self.bodies)

    def __iter__(self) -> Iterator[OutgoingMessage]:
        return map(OutgoingMessage, self.bodies)

    @overload
    def __getitem__(self, at: int) -> OutgoingMessage: ...

    @overload
    def __getitem__(self, at: slice) -> Payloads: ...

    def __getitem__(self, at: int | slice) -> OutgoingMessage | Payloads:
        if isinstance(at, slice):
            return Payloads(self.bodies[at])

        return OutgoingMessage(self.bodies[at])

    def __repr__(self) -> str:
        return f"<Payloads of {len(self)} messages>"


class SentMessages(Sequence[SentMessage]):
    """Where the messages of one append were stored: consecutive offsets of one partition.

    Reads like a list of :class:`SentMessage`, equals a list of the same ones, and makes each when it is asked for.

    Attributes:
        topic, partition: of all of them.
        offsets: of each, in order.
        timestamps: of each, in milliseconds since the epoch; one number if all have the same.
    """

    __slots__ = ("offsets", "partition", "timestamps", "topic")

    def __init__(self, topic: str, partition: int, offsets: range, timestamps: Sequence[int] | int) -> None:
        self.topic = topic
        self.partition = partition
        self.offsets = offsets
        self.timestamps = timestamps

    def __len__(self) -> int:
        return len(self.offsets)

    def __iter__(self) -> Iterator[SentMessage]:
        stamps = repeat(self.timestamps) if isinstance(self.timestamps, int) else self.timestamps
        return map(SentMessage, repeat(self.topic), repeat(self.partition), self.offsets, stamps)

    @overload
    def __getitem__(self, at: int) -> SentMessage: ...

    @overload
    def __getitem__(self, at: slice) -> SentMessages: ...

    def __getitem__(self, at: int | slice) -> SentMessage | SentMessages:
        stamps = self.timestamps
        if isinstance(at, slice):
            part = stamps if isinstance(stamps, int) else stamps[at]
            return SentMessages(self.topic, self.partition, self.offsets[at], part)

        stamp = stamps if isinstance(stamps, int) else stamps[at]
        return SentMessage(self.topic, self.partition, self.offsets[at], stamp)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SentMessages | list):
            return NotImplemented

        return len(self) == len(other) and all(map(SentMessage.__eq__, self, other))

    __hash__ = None  # type: ignore[assignment]  # as a list's: it equals lists

    def __repr__(self) -> str:
        return repr(list(self))


class ProducerSequence(NamedTuple):
    """Names one append, so that a repeated one is recognised: sequence numbers of one producer and partition grow by
    the number of messages in each append."""

    producer_id: bytes
    first: int


class Gone(NamedTuple):
    """Messages the log no longer has although they were never settled (retention, compaction).

    Attributes:
        first: the first lost offset.
        end: one past the last one.
        reason: why they are gone, in the driver's words.
        restart: the log itself ends below the position, because it was made anew: reading can go on here, after a seek.
            ``first`` and ``end`` are the position then, and how much was lost is not known.
    """

    tp: TopicPartition
    first: int
    end: int
    reason: str
    restart: int | None = None


class Broken(NamedTuple):
    """A record the driver could not decode. It is dead-lettered with its raw bytes, never dropped."""

    offset: int
    raw: bytes
    error: Exception


class DeadLetter(NamedTuple):
    """A message that will not be handled here, and everything known about why.

    Attributes:
        id: stable over repetitions: topic, partition, offset and group. A dead-letter queue that recognises it keeps
            one of two equal letters.
        payload, key, headers, timestamp: the message's own; ``payload`` holds the raw bytes of one that could not be
            decoded, and is None where the body was lost.
        tp, offset, group: where it came from.
        reason: why, in one line.
        exception_type, exception_message, stack: of the last failure; empty strings when there was none.
        attempts: how often it was tried; 0 if it never reached a handler.
        first_failure, last_failure: when, in milliseconds since the epoch.
    """

    id: str
    payload: bytes | None
    key: bytes | None
    headers: Headers
    timestamp: int
    tp: TopicPartition
    offset: int | None
    group: str | None
    reason: str
    exception_type: str
    exception_message: str
    stack: str
    attempts: int
    first_failure: int
    last_failure: int


class Version(NamedTuple):
    """What a state store compares to see whether a value has changed. Its content means nothing to callers."""

    token: int | str | bytes


class Versioned(NamedTuple):
    """A value and the version that a later :meth:`~rustmq_sdk.slots.StateStore.put` must still find."""

    value: bytes
    version: Version


class Receipt(NamedTuple):
    """Names one delivery of a queue, to settle it or to renew its lease. Only the driver knows what ``token`` means."""

    id: str
    token: Any
