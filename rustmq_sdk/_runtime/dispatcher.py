"""Carries batches from the outbox to the sink: a fixed number of senders, and a timekeeper."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Sequence
from random import Random
from typing import Protocol

import anyio
from anyio.abc import TaskGroup

from rustmq_sdk._core.append_attempts import AppendAttempts
from rustmq_sdk._core.outbox import Batch, Chunk, Outbox, PartitionQueue, Unflushed
from rustmq_sdk._core.routing import Submission, Topic
from rustmq_sdk._runtime.appending import append, ask_partitions, persevere
from rustmq_sdk.config import ProducerConfig
from rustmq_sdk.errors import ConfigurationError, NotAllStored, OutcomeUnknown, TransientDriverError, UnknownTopic
from rustmq_sdk.slots import Sink
from rustmq_sdk.values import OutgoingMessage, SentMessage

# So many partitions append at once. A sink that writes through one connection gathers what arrives together into one
# commit; one that speaks to a cluster has a request in flight at each of a usual one's brokers.
SENDERS = 8

# The number of partitions may grow. Apache Kafka's producer asks again after five minutes too (metadata.max.age.ms).
ASK_AGAIN_AFTER = 300.0


class Failed(Protocol):
    """Told of messages that were not stored and that nobody waits for."""

    def __call__(self, topic: str, count: int, error: Exception) -> None: ...


class Dispatcher:
    """Sends what is submitted.

    Args:
        sink: where to.
        config: of the producer.
        idempotent: the sink recognises a repeated append.
        append_messages: so many messages may share an append, if that is more than a batch.
        settled: told how many messages are stored or have failed, whenever some are.
        failed: told of failures nobody waits for.
        rng: for jitter, and for the partition that messages without a key begin with.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        config: ProducerConfig,
        idempotent: bool,
        append_messages: int,
        settled: Callable[[int], None],
        failed: Failed,
        rng: Random,
    ) -> None:
        self._sink = sink
        self._config = config
        self._idempotent = idempotent
        self._settled = settled
        self._failed = failed
        self._rng = rng
        self._outbox = Outbox(batch_size=config.batch_size, linger=config.linger, append_messages=append_messages)
        self._producer_id = os.urandom(16)
        self._topics: dict[str, Topic] = {}
        self._to_ask: deque[Topic] = deque()
        self._stopped = False
        self._scopes: list[anyio.CancelScope] = []
        self._idle: list[anyio.Event] = []
        self._alarm = anyio.Event()
        self._alarm_at = -math.inf

    def start(self, tasks: TaskGroup) -> None:
        """Starts ``SENDERS`` + 1 tasks; their number never changes. :meth:`stop` ends them.

        A cancelled producer still sends what it was given, so they do not hear the cancellation of what is around them.
        """
        self._scopes = [anyio.CancelScope(shield=True) for _ in range(SENDERS + 1)]
        tasks.start_soon(self._keep_time, self._scopes[-1], name="producer timekeeper")
        for number, scope in enumerate(self._scopes[:-1]):
            tasks.start_soon(self._send, scope, name=f"producer sender {number}")

    def stop(self) -> None:
        """Cancels the tasks, and fails what they have not sent."""
        self._stopped = True
        for scope in self._scopes:
            scope.cancel()

        error = self._closed()
        for topic in self._topics.values():
            self._fail_waiting(topic, len(topic.waiting), error)
            for queue in topic.queues.values():
                while queue.chunks:
                    self._fail(topic.name, queue.chunks.popleft(), error)

        self._outbox.ready.clear()

    def submit(self, name: str, submission: Submission) -> None:
        """Queues messages of one topic, in order."""
        topic = self._topics.get(name)
        if topic is None:
            topic = self._topics[name] = Topic(name, self._rng.randrange(1 << 16))

        submission.unflushed.unsettled += len(submission.messages)
        if self._stopped:
            # It waited for room, and those whose room it got were given up on.
            self._fail(name, submission, self._closed())
            return

        now = anyio.current_time()
        if topic.partitions is not None and now - topic.asked_at >= ASK_AGAIN_AFTER:
            topic.partitions = None

        if topic.partitions is None:
            self._defer(topic, submission)
        else:
            self._divide(topic, submission, now)

        self._wake()

    def join(self, name: str, message: OutgoingMessage, unflushed: Unflushed) -> bool:
        """Puts a message that nobody waits for after others of the same flush, if somebody will send those anyway.

        Most of a stream goes this way, at a third of the price. False: it has to be submitted.
        """
        topic = self._topics.get(name)
        queue = None if topic is None else topic.queue_for(message)
        if queue is None or self._stopped or not self._outbox.join(queue, message, unflushed):
            return False

        unflushed.unsettled += 1
        return True

    def hurry(self) -> None:
        """Lets nothing linger that was submitted before."""
        self._outbox.hurry(anyio.current_time())
        self._wake()

    def _defer(self, topic: Topic, submission: Submission) -> None:
        """Keeps it until the number of partitions is known."""
        topic.partitions = None
        topic.waiting.append(submission._replace(checked=True))
        if not topic.asking:
            topic.asking = True
            self._to_ask.append(topic)

    def _divide(self, topic: Topic, submission: Submission, now: float) -> None:
        try:
            shares = topic.divide(submission.messages, self._config.batch_size)
        except ConfigurationError as error:
            if submission.checked:
                self._fail(topic.name, submission, error)
            else:
                # There may be more partitions by now: ask before refusing.
                self._defer(topic, submission)

            return

        for share in shares:
            queue = topic.queues.get(share.partition)
            if queue is None:
                queue = topic.queues[share.partition] = PartitionQueue(topic.name, share.partition, self._producer_id)

            chunk = Chunk(share.messages, share.places, submission.pending, submission.born, submission.unflushed)
            self._outbox.put(queue, chunk, now)

    def _wake(self) -> None:
        """Wakes as many senders as there is work for, and the timekeeper if it would wake too late."""
        work = len(self._outbox.ready) + len(self._to_ask)
        for _ in range(min(work, len(self._idle))):
            self._idle.pop().set()

        if self._alarm_at > self._next_alarm():
            self._alarm.set()

    def _next_alarm(self) -> float:
        due = self._outbox.next_due()
        if due is not None:
            return due

        # Every sender is taken, or soon will be: somebody must see to it that what is ready is given up in time.
        oldest = None if self._idle else self._outbox.oldest_ready()
        return math.inf if oldest is None else oldest + self._config.send_timeout

    async def _keep_time(self, scope: anyio.CancelScope) -> None:
        with scope:
            while True:
                now = anyio.current_time()
                self._outbox.wake_due(now)
                self._expire(now)

                self._wake()
                self._alarm = anyio.Event()
                self._alarm_at = self._next_alarm()
                with anyio.CancelScope(deadline=self._alarm_at):
                    await self._alarm.wait()

    def _expire(self, now: float) -> None:
        for topic, chunk in self._outbox.expire(now, self._config.send_timeout):
            self._fail(topic, chunk, self._too_late())

    def _closed(self) -> TransientDriverError:
        return TransientDriverError("the producer was closed before it was sent", slot="sink", operation="append")

    def _too_late(self) -> TransientDriverError:
        return TransientDriverError(
            f"not sent within send_timeout={self._config.send_timeout:g} s: all senders are waiting for answers",
            slot="sink",
            operation="append",
        )

    async def _send(self, scope: anyio.CancelScope) -> None:
        with scope:
            while True:
                if self._to_ask:
                    await self._ask(self._to_ask.popleft())
                elif (batch := self._outbox.take()) is not None:
                    await self._append(batch)
                else:
                    call = anyio.Event()
                    self._idle.append(call)
                    await call.wait()

    async def _ask(self, topic: Topic) -> None:
        """Finds out how many partitions there are, and sends on what waits for that."""
        asked_by = len(topic.waiting)
        attempts = self._attempts(topic.waiting[0].born, repeatable=True)
        try:
            count = await persevere(attempts, ask_partitions, self._sink, topic.name)
        except Exception as error:
            # Those who came meanwhile have time left: they ask for themselves.
            self._fail_waiting(topic, asked_by, error)
            if topic.waiting:
                self._to_ask.append(topic)
            else:
                topic.asking = False
        else:
            topic.asking = False
            topic.partitions, topic.asked_at = count, anyio.current_time()
            waiting, topic.waiting = topic.waiting, []
            for submission in waiting:
                self._divide(topic, submission, topic.asked_at)

        self._wake()

    async def _append(self, batch: Batch) -> None:
        queue = batch.queue
        topic = self._topics[queue.topic]
        topic.move_on(queue.partition)
        try:
            sent = await self._append_in_time(batch)
        except NotAllStored as partly:
            self._partly_stored(batch, partly)
        except Exception as error:
            if isinstance(error, UnknownTopic):
                topic.partitions = None

            self._fail_batch(batch, error)
        except BaseException as stopped:
            self._fail_batch(batch, OutcomeUnknown("the producer was closed while the message was on its way"))
            raise stopped from None
        else:
            self._stored(batch, sent)

    async def _append_in_time(self, batch: Batch) -> Sequence[SentMessage]:
        if anyio.current_time() - batch.born >= self._config.send_timeout:
            raise self._too_late()

        attempts = self._attempts(batch.born, repeatable=self._idempotent)
        sequence = batch.sequence if self._idempotent else None
        return await persevere(attempts, append, self._sink, batch, sequence)

    def _attempts(self, born: float, *, repeatable: bool) -> AppendAttempts:
        timeout = self._config.send_timeout
        return AppendAttempts(repeatable=repeatable, deadline=born + timeout, timeout=timeout, rng=self._rng)

    def _stored(self, batch: Batch, sent: Sequence[SentMessage]) -> None:
        first = 0
        for chunk in batch.chunks:
            size = len(chunk.messages)
            if chunk.pending is not None:
                chunk.pending.settle(chunk.places, sent if size == len(sent) else sent[first : first + size])

            chunk.unflushed.settled(size)
            first += size

        self._settled(first)
        self._finish(batch)

    def _partly_stored(self, batch: Batch, partly: NotAllStored) -> None:
        """Those that share an append know nothing of each other: each hears of its own messages."""
        first = 0
        for chunk in batch.chunks:
            each = range(first, first + len(chunk.messages))
            if chunk.pending is not None:
                stored = [place for place, number in enumerate(each) if number not in partly.refused]
                sent = [partly.sent[first + place] for place in stored]
                chunk.pending.settle([chunk.places[place] for place in stored], sent)

            if refused := [partly.refused[number] for number in each if number in partly.refused]:
                self._refused(batch.queue.topic, chunk, len(refused), refused[0])

            chunk.unflushed.settled(len(each))
            first = each.stop

        self._settled(first)
        self._finish(batch, fresh_id=os.urandom(16))

    def _fail_batch(self, batch: Batch, error: Exception) -> None:
        for chunk in batch.chunks:
            self._fail(batch.queue.topic, chunk, error)

        # Its messages may be stored yet, or never: either way the numbers after it must not depend on that.
        self._finish(batch, fresh_id=os.urandom(16))

    def _finish(self, batch: Batch, *, fresh_id: bytes | None = None) -> None:
        self._outbox.done(batch, anyio.current_time(), fresh_id=fresh_id)
        self._wake()

    def _fail_waiting(self, topic: Topic, count: int, error: Exception) -> None:
        waiting, topic.waiting = topic.waiting[:count], topic.waiting[count:]
        for submission in waiting:
            self._fail(topic.name, submission, error)

    def _fail(self, topic: str, part: Submission | Chunk, error: Exception) -> None:
        count = len(part.messages)
        self._refused(topic, part, count, error)
        part.unflushed.settled(count)
        self._settled(count)

    def _refused(self, topic: str, part: Submission | Chunk, count: int, error: Exception) -> None:
        if part.pending is None:
            self._failed(topic, count, error)
        else:
            part.pending.fail(count, error)
