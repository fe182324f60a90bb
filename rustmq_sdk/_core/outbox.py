"""What waits to be sent: a queue for each partition, one batch of it in flight at a time.

A queue is *idle* (empty), *lingering* (it waits for company, until its linger is over), *ready* (a sender should take
it) or *busy* (its batch is in flight; more may queue behind it). Because nothing of a busy queue is taken, a batch that
is retried holds its partition's order; because ready queues are served first come, first served, no partition starves
another.
"""

from __future__ import annotations

import enum
import math
from collections import deque
from collections.abc import Callable, Sequence
from itertools import chain
from typing import cast

from rustmq_sdk.values import OutgoingMessage, Payloads, ProducerSequence, SentMessage, SentMessages


class PendingSend:
    """What one call waits for: where each of its messages was stored.

    Attributes:
        error: the first failure of any of its messages.
        stored: how many are durable.
    """

    __slots__ = ("_found", "_missing", "_tell", "error", "results", "stored")

    def __init__(self, size: int, tell: Callable[[], object]) -> None:
        self._found: list[SentMessage | None] = [None] * size
        self.results: Sequence[SentMessage | None] = self._found
        self.error: Exception | None = None
        self.stored = 0
        self._missing = size
        self._tell = tell

    def settle(self, places: Sequence[int], sent: Sequence[SentMessage]) -> None:
        """The messages at ``places`` are durable."""
        if len(sent) == len(self.results):
            # A list may be the sink's own, and it changes it.
            self.results = sent if isinstance(sent, SentMessages) else list(sent)
        else:
            for place, message in zip(places, sent, strict=True):
                self._found[place] = message

        self.stored += len(sent)
        self._arrived(len(sent))

    def fail(self, count: int, error: Exception) -> None:
        """So many of its messages will not be sent, or nobody knows whether they were."""
        self.error = self.error or error
        self._arrived(count)

    def _arrived(self, count: int) -> None:
        self._missing -= count
        if not self._missing:
            self._tell()


class Unflushed:
    """Counts the messages since the last flush that are not settled yet, for the next flush to wait for."""

    __slots__ = ("tell", "unsettled")

    def __init__(self) -> None:
        self.unsettled = 0
        self.tell: Callable[[], object] | None = None

    def settled(self, count: int) -> None:
        """So many of them are stored, or have failed."""
        self.unsettled -= count
        if not self.unsettled and self.tell is not None:
            self.tell()


class Chunk:
    """Messages of one call for one partition; they are sent in one append.

    Attributes:
        messages: a list of its own where nobody waits: more may join them.
        places: which messages of the call these are, by their number.
        pending: of the call; None where nobody waits.
        born: when the call was made.
    """

    __slots__ = ("born", "messages", "pending", "places", "unflushed")

    def __init__(
        self,
        messages: Sequence[OutgoingMessage],
        places: Sequence[int],
        pending: PendingSend | None,
        born: float,
        unflushed: Unflushed,
    ) -> None:
        self.messages = messages
        self.places = places
        self.pending = pending
        self.born = born
        self.unflushed = unflushed


class State(enum.Enum):
    """What a partition's queue is doing."""

    IDLE = enum.auto()
    LINGERING = enum.auto()
    READY = enum.auto()
    BUSY = enum.auto()


class PartitionQueue:
    """What waits for one partition, and the sequence number of its next message.

    Attributes:
        producer_id: renewed after a batch whose fate is unknown, so that no later batch can be taken for that one and
            none leaves a gap after it.
    """

    __slots__ = ("chunks", "count", "due", "first", "partition", "producer_id", "state", "topic", "urgent")

    def __init__(self, topic: str, partition: int, producer_id: bytes) -> None:
        self.topic = topic
        self.partition = partition
        self.producer_id = producer_id
        self.first = 0
        self.chunks: deque[Chunk] = deque()
        self.count = 0
        self.state = State.IDLE
        self.urgent = False
        self.due = 0.0


class Batch:
    """One append: the chunks at the front of a queue."""

    __slots__ = ("born", "chunks", "messages", "queue", "sequence")

    def __init__(self, queue: PartitionQueue, chunks: list[Chunk]) -> None:
        self.queue = queue
        self.chunks = chunks
        self.born = chunks[0].born
        self.sequence = ProducerSequence(queue.producer_id, queue.first)
        self.messages = chunks[0].messages if len(chunks) == 1 else _concatenated([each.messages for each in chunks])


def _concatenated(parts: Sequence[Sequence[OutgoingMessage]]) -> Sequence[OutgoingMessage]:
    columns = [part.bodies for part in parts if isinstance(part, Payloads)]
    if len(columns) == len(parts):
        return Payloads(list(chain.from_iterable(columns)))

    return list(chain.from_iterable(parts))


class Outbox:
    """The queues of one producer.

    Args:
        batch_size: messages that fill a batch. Chunks are no larger.
        linger: seconds that messages nobody waits for may wait for company.
        append_messages: several batches that wait for one partition go together up to this size.
    """

    def __init__(self, *, batch_size: int, linger: float, append_messages: int = 0) -> None:
        self._batch_size = batch_size
        self._append_messages = max(batch_size, append_messages)
        self._linger = linger
        self._hurried_at = -math.inf
        self._lingering: deque[tuple[float, PartitionQueue]] = deque()
        self.ready: deque[PartitionQueue] = deque()
        # Never later than it is: exact after each expire(), and none too early for longer than something is ready.
        self._oldest_ready = math.inf

    def put(self, queue: PartitionQueue, chunk: Chunk, now: float) -> None:
        """Adds messages at the end of a partition's queue."""
        queue.count += len(chunk.messages)
        if not self._joined(queue, chunk):
            queue.chunks.append(chunk)

        # Whoever awaits a send is its own company: while its batch is in flight all others gather behind it, and alone
        # it would gain nothing by waiting.
        queue.urgent = queue.urgent or chunk.pending is not None
        if queue.state in (State.IDLE, State.LINGERING):
            self._place(queue, now)

    def join(self, queue: PartitionQueue, message: OutgoingMessage, unflushed: Unflushed) -> bool:
        """Adds a message that nobody waits for to those in front of it, if nothing else changes by that.

        False: it has to be :meth:`put`.
        """
        if not queue.chunks:
            return False

        last = queue.chunks[-1]
        if last.pending is not None or last.unflushed is not unflushed or len(last.messages) + 1 >= self._batch_size:
            return False

        # The message that fills a batch ends its lingering, and the choice of its partition.
        if (queue.count + 1) % self._batch_size == 0:
            return False

        cast("list[OutgoingMessage]", last.messages).append(message)
        queue.count += 1
        return True

    def take(self) -> Batch | None:
        """The batch that should be sent next; its queue is busy until :meth:`done`."""
        if not self.ready:
            return None

        queue = self.ready.popleft()
        if not self.ready:
            self._oldest_ready = math.inf

        queue.state = State.BUSY
        chunks = [queue.chunks.popleft()]
        size = len(chunks[0].messages)
        while queue.chunks and size + len(queue.chunks[0].messages) <= self._append_messages:
            chunks.append(queue.chunks.popleft())
            size += len(chunks[-1].messages)

        queue.count -= size
        return Batch(queue, chunks)

    def done(self, batch: Batch, now: float, *, fresh_id: bytes | None = None) -> None:
        """The batch is stored, or has failed: then ``fresh_id`` names the producer from here on."""
        queue = batch.queue
        queue.first += len(batch.messages)
        if fresh_id is not None:
            queue.producer_id, queue.first = fresh_id, 0

        queue.state = State.IDLE
        queue.urgent = any(chunk.pending is not None for chunk in queue.chunks)
        if queue.chunks:
            self._place(queue, now)

    def hurry(self, now: float) -> None:
        """Lets nothing linger that is here now."""
        self._hurried_at = now
        for _, queue in self._lingering:
            if queue.state is State.LINGERING:
                self._make_ready(queue)

        self._lingering.clear()

    def wake_due(self, now: float) -> None:
        """Makes the queues ready whose linger is over."""
        while self._lingering and self._lingering[0][0] <= now:
            due, queue = self._lingering.popleft()
            if queue.state is State.LINGERING and queue.due == due:
                self._make_ready(queue)

    def next_due(self) -> float | None:
        """When the next linger is over; earlier is harmless."""
        return self._lingering[0][0] if self._lingering else None

    def oldest_ready(self) -> float | None:
        """When the oldest message was born that no sender has found time for; earlier is harmless.

        Asked at every turn, so it looks at no queue: with many of them all turns together would be their square.
        """
        return self._oldest_ready if self.ready else None

    def expire(self, now: float, timeout: float) -> list[tuple[str, Chunk]]:
        """Takes back what is ready and too old to be sent still, each with its topic."""
        expired: list[tuple[str, Chunk]] = []
        # A sum, as in whoever waits for the moment: ``now - timeout`` may be rounded to before it.
        if self._oldest_ready + timeout > now:
            return expired

        left: list[PartitionQueue] = []
        for queue in self.ready:
            while queue.chunks and queue.chunks[0].born + timeout <= now:
                chunk = queue.chunks.popleft()
                queue.count -= len(chunk.messages)
                expired.append((queue.topic, chunk))

            if queue.chunks:
                left.append(queue)
            else:
                queue.state = State.IDLE

        self.ready.clear()
        self.ready.extend(left)
        self._oldest_ready = min((queue.chunks[0].born for queue in left), default=math.inf)
        return expired

    def _joined(self, queue: PartitionQueue, chunk: Chunk) -> bool:
        """Messages nobody waits for share a chunk, so that a stream of them costs one for each batch."""
        if not queue.chunks or chunk.pending is not None:
            return False

        last = queue.chunks[-1]
        room = self._batch_size - len(last.messages)
        if last.pending is not None or last.unflushed is not chunk.unflushed or len(chunk.messages) > room:
            return False

        cast("list[OutgoingMessage]", last.messages).extend(chunk.messages)
        return True

    def _place(self, queue: PartitionQueue, now: float) -> None:
        due = queue.chunks[0].born + self._linger
        hurried = queue.chunks[0].born <= self._hurried_at
        if queue.urgent or hurried or queue.count >= self._batch_size or due <= now:
            self._make_ready(queue)
        elif queue.state is State.IDLE:
            queue.state = State.LINGERING
            queue.due = due
            self._lingering.append((due, queue))

    def _make_ready(self, queue: PartitionQueue) -> None:
        queue.state = State.READY
        self.ready.append(queue)
        self._oldest_ready = min(self._oldest_ready, queue.chunks[0].born)
