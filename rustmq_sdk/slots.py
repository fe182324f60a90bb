"""The slots a driver fills, each promise numbered; ``rustmq_sdk.testing`` has a contract suite for each.

Two kinds of source exist, and pretending they are one is how bugs start. A *log* has partitions, offsets and one
committed position a partition: the runtime keeps the ledger of what is settled, the driver commits checkpoints. A
*queue* leases and settles every message by itself: the runtime batches settlements and renews leases, the driver
carries them.

A driver declares what it can do in :class:`Capabilities`. Each claimed capability is tested by the contract suites, and
so is that each unclaimed one raises :class:`~rustmq_sdk.errors.Unsupported`.

Errors: a driver raises ``TransientDriverError`` for what may heal, ``PermanentDriverError`` for what will not, with the
client's exception as cause, and lets nothing else of its client's escape.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Hashable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

from rustmq_sdk.message import Build as Build
from rustmq_sdk.values import (
    Assignment,
    Broken,
    Checkpoint,
    CommitOutcome,
    DeadLetter,
    Gone,
    OutgoingMessage,
    ProducerSequence,
    SentMessage,
    TopicPartition,
    Version,
    Versioned,
)
from rustmq_sdk.values import Receipt as Receipt


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a driver can do. The runtime supplies what is missing where it can, and refuses at start where it cannot."""

    kind: Literal["log", "queue"]
    checkpoint_room: int | None = 0
    """How many bytes of ``Checkpoint.extra`` the driver can store, its own encoding not counted. None: no limit."""
    overshoot_messages: int = 0
    """By how many messages one fetch may exceed ``max_messages``."""
    overshoot_bytes: int = 0
    """By how many bytes one fetch may exceed ``max_bytes``; one message larger than that always gets through."""
    seek: bool = False
    offsets_at: bool = False
    """Whether it can find the first offset at or after a timestamp."""
    read: bool = False
    """Whether it can read single offsets again without moving the fetch position. Every log needs it (promise 4)."""
    dense_offsets: bool = False
    """Whether offsets have no gaps, so that lag is exact."""
    lease: float | None = None
    """Queues: for how many seconds a message is ours if its lease is not renewed."""
    counts_attempts: bool = False
    """Queues: whether the broker counts deliveries."""
    delayed_nack: bool = False
    """Queues: whether the broker takes a delay with each nack."""
    idempotent_append: bool = False
    """Whether an append that is repeated with the same :class:`ProducerSequence` is stored once."""
    append_messages: int = 0
    """How many messages may share an append, where more wait for their partition than ``batch_size``."""
    dedup_letters: bool = False
    """Whether it keeps one of two equal dead letters."""
    fences: bool = False
    """Whether assignments have a generation that grows with every change of owner."""


@dataclass(slots=True, eq=False)
class Fetched:
    """A piece of one partition: records in offset order, all from one fetch.

    Attributes:
        offsets: of the records, increasing; a ``range`` where they are dense. Queues: any ``range`` of that length.
        records: the client's own, as many as ``offsets``.
        build: turns them into messages.
        next_offset: everything below it was scanned; larger than the last offset + 1 where compaction or transaction
            markers left gaps. A piece may have no records and still move it.
        size: bytes of all payloads, keys and headers, near enough for a memory budget.
        largest: bytes of the largest record; 0 counts the whole piece until it is wholly settled.
        broken: records that could not be decoded; their offsets are not in ``offsets``.
        gone: what the log has lost below ``next_offset``.
        receipts, attempts: queues only, as many as ``records``; ``attempts`` may be empty.
    """

    assignment: Assignment
    offsets: Sequence[int]
    records: Sequence[Any]
    build: Build
    next_offset: int
    size: int
    largest: int = 0
    broken: Sequence[Broken] = ()
    gone: Sequence[Gone] = ()
    receipts: Sequence[Receipt] = ()
    attempts: Sequence[int] = ()


class AssignmentListener(Protocol):
    """What a subscription tells the runtime, serially, for the first time after ``subscribe()`` was entered.

    Calls come from a task of the driver's own, never from within ``fetch()``, and wait for none: while the circuit is
    open nobody fetches. No call is made while another one is running, no fetch result crosses one. What a call raises
    ends the consumer: the driver keeps it, and the next fetch raises it as it is. After what may pass
    (``TransientDriverError``) it may call again instead, and fetches raise that until it has passed.

    A driver that knows why says so in ``reason``, one of the words of
    :meth:`~rustmq_sdk.observe.Observer.on_rebalanced`. Observers and the log get it; nothing is decided by it.
    """

    async def assigned(
        self, partitions: Collection[TopicPartition], generation: int | None, *, reason: str = "assigned"
    ) -> Mapping[Assignment, int | None]:
        """The partitions are ours now. Returns an assignment for each and the offset to start at (None on queues).

        The runtime calls ``committed()``, ``start_offsets()`` and so on meanwhile. Delivery begins after it returned.
        What was revoked goes on where it was if it comes back in the same or the directly following generation.
        """
        ...

    async def revoking(self, assignments: Collection[Assignment], budget: float) -> None:
        """The partitions will be taken in ``budget`` seconds; commits for them still count until this returns.

        Returns earlier when nothing is in the hands of handlers, and at once on close or cancellation. Afterwards the
        driver either names a partition in ``assigned()`` again (an eager rebalance that gave it back) or calls
        ``lost()`` for it as soon as that is settled; until then late acks are recorded, not refused, and commits are
        RETRY. A commit that the client still tries when this returns has to be given up: sent later, it would go out
        under the next generation and move the position of whoever owns the partition then.
        """
        ...

    async def lost(self, assignments: Collection[Assignment], *, reason: str = "lost") -> None:
        """The partitions belong to somebody else already. The call does no I/O."""
        ...


class Subscription(Protocol):
    """A live subscription. All calls carry batches.

    1. *Nothing is skipped*: fetches of an assignment return its records in offset order, from the offset that
       ``assigned`` answered (or ``seek`` asked for) on.
    2. *Fair*: an assignment with records waiting is served within as many fetches as there are wanted assignments.
    3. *Wakes*: a waiting fetch returns soon after a record arrives, after ``wake()``, and after an assignment change.
    4. *Bounded*: at most ``max_messages`` and ``max_bytes`` beyond the declared overshoot.
    """

    async def fetch(
        self, wanted: Collection[Assignment], *, max_messages: int, max_bytes: int, max_wait: float
    ) -> Sequence[Fetched]:
        """Returns records of the wanted assignments, and waits at most ``max_wait`` seconds for the first.

        ``wanted`` may be empty: that keeps the membership alive until ``max_wait`` or ``wake()``. The runtime never
        cancels a fetch except when its own scope dies, and never runs two at once. An assignment that is not ours any
        more is ignored.
        """
        ...

    def wake(self) -> None:
        """Makes a waiting fetch return; if none is waiting, the next one does not wait. Called on the loop's thread."""
        ...

    @property
    def missing_topics(self) -> Mapping[str, str]:
        """What was subscribed to and could not be read when the driver last looked: by name, a sentence. Does no I/O.

        Topics that do not exist, and partitions that have no leader. ``health()`` shows the sentence: "topic 'quakes'
        does not exist; waiting until somebody creates it". Empty before the first look, and where a topic that does
        not exist is an ``UnknownTopic``.
        """
        ...


class LogSubscription(Subscription, Protocol):
    """A subscription to a log.

    5. *Commits are durable and fenced*: COMMITTED means the broker has it; a partition that is not ours is FENCED and
       its position does not move.
    6. *A checkpoint comes back as it was written*, ``extra`` to the byte.
    """

    async def commit(self, checkpoints: Mapping[Assignment, Checkpoint]) -> Mapping[Assignment, CommitOutcome]: ...

    async def committed(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, Checkpoint | None]: ...

    async def start_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]: ...

    async def end_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Returns one past the last record that a reader may see (under read_committed, the last stable offset)."""
        ...

    async def offsets_at(
        self, partitions: Collection[TopicPartition], timestamp_ms: int
    ) -> Mapping[TopicPartition, int]:
        """Returns the first offset whose record is not older than ``timestamp_ms``, or the end if there is none."""
        ...

    def seek(self, old: Assignment, new: Assignment, offset: int) -> None:
        """From now on ``new`` stands for the partition and is fetched from ``offset``; ``old`` is not used any more.

        That holds while the partition is being revoked as well: then ``new`` is committed in the place of ``old``, and
        is lost, or named again.
        """
        ...

    async def read(self, assignment: Assignment, offsets: Sequence[int]) -> Fetched:
        """Returns the records at these offsets (which increase), without moving the fetch position.

        Offsets that the log no longer has are named in ``gone``.
        """
        ...


class Ack(NamedTuple):
    """Queues: the message was handled, and never comes again."""

    receipt: Receipt


class Nack(NamedTuple):
    """Queues: the message comes again after ``delay`` seconds. With ``counted=False`` it is given back without counting
    an attempt, where the broker can do that."""

    receipt: Receipt
    delay: float = 0.0
    counted: bool = True


class Term(NamedTuple):
    """Queues: the message was not handled and never comes again, because it is in the dead letters."""

    receipt: Receipt


class SettleOutcome(enum.Enum):
    """What became of one settlement."""

    SETTLED = "settled"
    LOST = "lost"
    """The lease had run out, so somebody else has the message, or will get it."""
    RETRY = "retry"


class QueueSubscription(Subscription, Protocol):
    """A subscription to a queue; it reports one assignment a topic, with ``partition=None``.

    7. *Leased*: a fetched message is nobody else's until its lease runs out; unsettled it comes again.
    8. *Settled is settled*: SETTLED means the broker has it.
    """

    async def settle(self, settlements: Sequence[Ack | Nack | Term]) -> Sequence[SettleOutcome]:
        """Sends many settlements to the broker at once, and returns what became of each, in their order."""
        ...

    async def extend(self, receipts: Sequence[Receipt]) -> Sequence[Receipt]:
        """Renews the leases, and returns the receipts of those that are lost already."""
        ...


AnySubscription: TypeAlias = LogSubscription | QueueSubscription


class Source(Protocol):
    """Topics and a group to read. Entering :meth:`subscribe` connects; leaving it leaves the group, quickly.

    Everything is settled and written before it is left. Calls may still come, or be under way, while it is left; what
    they raise from then on is ignored.
    """

    @property
    def capabilities(self) -> Capabilities: ...

    def subscribe(self, listener: AssignmentListener) -> AbstractAsyncContextManager[AnySubscription]: ...


class Sink(Protocol):
    """Where messages are appended. The runtime chooses the partition.

    1. *Durable on return.*
    2. *In order*: messages of one append keep their order, and appends to one partition are made one after another.
    3. *Once*, where ``idempotent_append`` is claimed: a repeated :class:`ProducerSequence` returns what the first
       append returned and stores nothing.
    """

    async def partitions(self, topic: str) -> int:
        """Returns the number of partitions, and creates the topic if the driver creates topics on send.

        Raises:
            UnknownTopic: there is no such topic, and the driver does not create it.
        """
        ...

    async def append(
        self,
        topic: str,
        partition: int,
        messages: Sequence[OutgoingMessage],
        *,
        sequence: ProducerSequence | None,
    ) -> Sequence[SentMessage]:
        """Appends messages to a partition.

        Raises:
            OutcomeUnknown: nobody can know whether it did.
            NotAllStored: some of them never will be, and all others are, in order.
            Exception: none of them is.
        """
        ...


class StateStore(Protocol):
    """Values under keys, written by compare-and-set.

    1. *Reads its writes.*
    2. *Fences stale writers*: of two puts with the same ``if_version`` at most one succeeds.
    """

    async def get(self, key: str) -> Versioned | None: ...

    async def put(self, key: str, value: bytes, *, if_version: Version | None) -> Version | None:
        """Writes the value if the key still has ``if_version`` (None: if there is no such key).

        Returns the new version, or None if the key had another one and nothing was written.
        """
        ...


class DeadLetterQueue(Protocol):
    """Where dead letters are stored.

    1. *Durable on return.*
    2. *At least once*; where ``dedup_letters`` is claimed, one of two equal letters is kept.
    """

    async def put(self, letters: Sequence[DeadLetter]) -> None:
        """Raises ``NotAllStored`` if only some of them never will be. After other errors all of them are put again."""
        ...


@runtime_checkable
class PlacedDeadLetterQueue(DeadLetterQueue, Protocol):
    """One that is made of several places: while one of them fails, letters go on being stored in the others."""

    async def places(self, letters: Sequence[DeadLetter]) -> Sequence[Hashable]:
        """Where each goes. Letters of one place are put together, and no others with them."""


class Admin(Protocol):
    """Creates and deletes topics, as far as the backend lets its clients do that."""

    async def create_topic(self, name: str, partitions: int, settings: Mapping[str, Any]) -> None:
        """Creates a topic. Does nothing if it exists with as many partitions, and refuses another number of them."""
        ...

    async def delete_topic(self, name: str) -> None: ...

    async def topics(self) -> Mapping[str, int]:
        """Returns the names of the topics, and how many partitions each has (1 for a queue)."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRequest:
    """What a driver needs to know to configure a source."""

    topics: Sequence[str]
    group: str | None
    lease: float
    """Seconds after which a silent member, or an unsettled message of a queue, may be taken over."""
    revoke_budget: float
    """Seconds that handlers may need to finish when partitions move."""


class Driver(Protocol):
    """What a URL names: the parts of one backend. A part that it does not have raises ``Unsupported``.

    Entering the context connects or opens the file, and leaving it closes. To do either twice changes nothing.
    """

    @property
    def capabilities(self) -> Capabilities: ...

    async def __aenter__(self) -> Driver: ...

    async def __aexit__(self, *exc_info: object) -> None: ...

    def source(self, request: SourceRequest) -> Source: ...

    def sink(self) -> Sink: ...

    def admin(self) -> Admin: ...

    def state_store(self, name: str) -> StateStore: ...

    def dead_letters(self, topic: str) -> DeadLetterQueue: ...
