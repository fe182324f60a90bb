"""The consumer's public face: it delegates."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Self, Unpack, final

import anyio

from rustmq_sdk._runtime.arguments import check_seconds, check_source, check_timeout, check_whole, named_partitions
from rustmq_sdk._runtime.delivery import nothing, popping
from rustmq_sdk._runtime.health import explain, health, statistics
from rustmq_sdk._runtime.life import Life
from rustmq_sdk._runtime.positions import Positions
from rustmq_sdk._runtime.route import route_of
from rustmq_sdk._runtime.session import Session, observers_of
from rustmq_sdk._runtime.wiring import Parts
from rustmq_sdk._runtime.workers import Handler, Workers, check_run, in_handler, stopped_before
from rustmq_sdk.config import ConsumerConfig, ConsumerOptions, Ordering, load
from rustmq_sdk.errors import ConsumerClosed, ConsumerStateError
from rustmq_sdk.message import Message, Messages
from rustmq_sdk.observe import Health, Statistics
from rustmq_sdk.slots import Capabilities, DeadLetterQueue, Source
from rustmq_sdk.values import TopicPartition


@final
class Consumer:
    """Receives messages and settles them one by one; loses nothing.

    An async context manager, entered and left in the same task. Of its calls only ``stop()`` may come from another
    thread or event loop: the others are a ``ConsumerStateError`` where they would have to wait, or to wake somebody.

    Made by ``client.consumer(…)``, or from hand-made slots: ``Consumer(source, group=…, …)``.

    Args:
        source: configured, not connected.
        topics: what the source was made to read, so that a misspelt one can be refused.
        config: instead of ``options``.
        route: where dead letters go, instead of the ``dead_letters`` of the options.
        observers: objects with some of the methods of :class:`~rustmq_sdk.Observer`.
        options: see :class:`~rustmq_sdk.ConsumerConfig`.

    Raises:
        ConfigurationError: a setting that cannot work, alone or with this source.
    """

    def __init__(
        self,
        source: Source,
        *,
        topics: Collection[str] = (),
        config: ConsumerConfig | None = None,
        route: DeadLetterQueue | Callable[..., Any] | None = None,
        observers: Collection[object] = (),
        **options: Unpack[ConsumerOptions],
    ) -> None:
        self._config = config = config or load(ConsumerConfig, dict(options), environment={})
        self._topics = topics
        check_source(source, config)
        self._session = session = Session(config, source.capabilities, observers_of(observers))
        self._life = Life(session, source, route_of(route, config))
        self._pop = popping(session, session.buffer.ready.pop)

    # Life

    async def __aenter__(self) -> Self:
        """Subscribes and starts the tasks; returns before partitions are assigned.

        Raises:
            ConsumerStateError: it was entered before.
            DriverError: the source could not be reached.
        """
        await self._life.begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes; see :meth:`close`. Waits for ``run()`` handlers only: what ``receive()`` handed out is released.

        Raises:
            ConsumerStateError: left in another task than the one that entered.
            Exception: what ended the consumer, if no call has raised it yet.
        """
        self._life.refuse_other_task()
        self._pop = nothing
        await self._life.end()
        self._session.over = True
        if error is None:
            self._life.raise_unseen_failure()

    async def close(self) -> None:
        """Stops fetching, lets in-flight finish, settles, commits, leaves; ends within ``close_timeout``.

        From another task it waits for what handlers and ``receive()`` loops hold. Inside a handler of ``run()`` it only
        asks, as :meth:`stop`; leaving the context does the rest. Closing twice is fine.
        """
        if self._session in in_handler.get():
            self.stop()
            return

        self._session.require_loop("close()")
        self._pop = nothing
        await self._life.close(wait_for_receivers=True)

    def stop(self) -> None:
        """Asks for the end: ``async for`` and ``run()`` end normally, waiting receives raise ``ConsumerClosed``.

        May be called from any thread and from signal handlers. What is in flight can still be settled; leaving the
        context commits it.
        """
        # Two plain assignments, so that it is safe between any two bytecodes of the loop's thread. The buffer is left
        # alone: receive() looks for the next message through ``_pop``.
        self._session.stopping = True
        self._pop = nothing
        self._life.post_stop()

    # Messages

    async def receive(self, timeout: float | None = None) -> Message:
        """Returns the next message. Messages of one partition come in the order of their offsets.

        Many tasks may call it at once, and a call that is cancelled has taken nothing. While messages are at hand it
        does not suspend, but it lets other tasks run at least every few hundred messages.

        Raises:
            TimeoutError: no message came within ``timeout`` seconds.
            ConsumerClosed: after ``stop()`` or ``close()``.
            PartitionStopped: every assigned partition waits for somebody.
            ConsumerStateError: a ``run()`` is going on.
        """
        try:
            return self._pop()
        except IndexError:
            # Left before the wait: whatever ends that would be shown as raised while this one was handled.
            pass

        return await self._receive(timeout)

    async def _receive(self, timeout: float | None) -> Message:
        delivery = self._receiving.delivery
        if timeout is None:
            return await delivery.next(self._pop)

        check_timeout(timeout)

        with anyio.move_on_after(timeout):
            return await delivery.next(self._pop)

        raise self._nothing_came(timeout)

    def _nothing_came(self, timeout: float) -> TimeoutError:
        return TimeoutError(f"no message within {timeout:g} s: {explain(self._session)}")

    async def receive_batch(
        self, max_messages: int = 500, max_wait: float = 0.1, timeout: float | None = None
    ) -> Messages:
        """Returns up to ``max_messages``: waits for the first one, and then at most ``max_wait`` seconds for more.

        The batch is never empty. The call raises what :meth:`receive` raises. If it is cancelled, it has taken nothing.
        """
        check_whole("max_messages", max_messages, least=1, fix="Give the size of a full batch")
        check_seconds("max_wait", max_wait, fix="0 takes what is there")
        check_timeout(timeout)
        delivery = self._receiving.delivery
        take = self._session.buffer.take_batch
        if timeout is None:
            return await delivery.next_batch(take, max_messages, max_wait)

        with anyio.move_on_after(timeout):
            return await delivery.next_batch(take, max_messages, max_wait)

        # Where ``timeout`` is the shorter one: fewer than wanted are better than an error each time.
        batch = delivery.batch_at_hand(take, max_messages)
        if batch is None:
            raise self._nothing_came(timeout)

        return batch

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        """As :meth:`receive`; ends after ``stop()`` or ``close()``."""
        try:
            return self._pop()
        except IndexError:
            pass

        try:
            return await self._receive(None)
        except ConsumerClosed:
            raise StopAsyncIteration from None

    async def run(
        self,
        handler: Handler,
        *,
        concurrency: int = 1,
        ordering: Ordering | None = None,
        batch_size: int | None = None,
        batch_wait: float = 0.1,
    ) -> None:
        """Calls ``handler`` for every message until the consumer is stopped.

        Returning acks, raising nacks (with the retry policy's backoff), ``raise Retry(…)`` and ``raise Reject(…)``
        overrule the policy; a cancelled handler's message is released without counting an attempt.

        A consumer that was stopped or closed before its first ``run()`` handles nothing, and the call returns: a signal
        may come at any moment. Run again after that, or outside of its context, it raises ``ConsumerClosed``.

        Args:
            handler: async, or plain: then it runs in a daemon thread (which cannot be cancelled), with a copy of the
                context variables. Takes a ``Message``, or ``Messages`` where ``batch_size`` is given. A plain one
                awaits by ``anyio.from_thread.run(producer.send, …, token=token)``, with a ``token =
                anyio.lowlevel.current_token()`` taken beside the call of ``run()``.
            concurrency: handlers at work at the same time; exactly as many tasks are added.
            ordering: ``"key"`` (default on logs; messages without a key are free), ``"partition"``, or ``"none"``
                (default on queues). A message that waits for its retry holds back only its own key (or partition).
            batch_size: hand out batches of at most so many. What the handler left unsettled is acked or nacked.
            batch_wait: seconds a batch waits for more after its first message.

        Raises:
            ConfigurationError: an argument that cannot work.
            ConsumerClosed: an earlier ``run()`` has returned because of ``stop()``, or the context was left.
            ConsumerStateError: beside another ``run()`` or a waiting ``receive()``.
            PartitionStopped: every assigned partition waits for somebody.
        """
        ordering = check_run(
            self._session, concurrency=concurrency, ordering=ordering, batch_size=batch_size, batch_wait=batch_wait
        )
        parts = self._receiving
        self._session.require_loop("run()")
        if parts.delivery.waiting:
            raise ConsumerStateError(
                "run() beside a waiting receive() would share the messages by chance. Use one of the two at a time"
            )

        if stopped_before(self._session):
            return

        parts.workers = workers = Workers(
            self._session,
            parts.delivery,
            handler,
            concurrency=concurrency,
            ordering=ordering,
            batch_size=batch_size,
            batch_wait=batch_wait,
        )
        # From here on receive() takes its slow path, and is refused there.
        self._pop = nothing
        try:
            await workers.run()
        finally:
            parts.workers = None
            if not self._session.stopping:
                self._pop = popping(self._session, self._session.buffer.ready.pop)

    # Positions

    async def commit(self) -> None:
        """Commits what is settled now; returns when the broker has it.

        Raises:
            StalePartition: a partition was lost meanwhile.
            CircuitOpen, TransientDriverError: it did not work within ``commit_timeout``; the next commit carries it.
            Unsupported: the consumer has no group.
        """
        self._session.check_failure()
        self._session.require_loop("commit()")
        await self._running.acknowledger.commit()

    async def seek(self, topic: str, partition: int, offset: int) -> None:
        """Goes on at ``offset``, back or ahead. Messages in flight turn stale; the next commit writes the new position.

        Raises:
            ConfigurationError: ``offset`` is below 0, or beyond the end: what is sent up to there would be skipped.
            ConsumerStateError: the partition is not assigned, or none was within ``commit_timeout`` after entering:
                until then it waits.
            TransientDriverError: the broker did not say within ``commit_timeout`` where the end is. Nothing has moved.
            Unsupported: the source cannot seek.
        """
        await self._positions.seek([TopicPartition(topic, partition)], offset)

    async def seek_all(self, offset: int) -> None:
        """:meth:`seek` for every assigned partition: all of them move, or none does."""
        await self._positions.seek_all(offset)

    async def seek_to_timestamp(self, topic: str, partition: int, timestamp: int | datetime) -> None:
        """Goes on at the first message not older than that: milliseconds since the epoch, or an aware ``datetime``."""
        await self._positions.seek_to_timestamp([TopicPartition(topic, partition)], timestamp)

    async def seek_all_to_timestamp(self, timestamp: int | datetime) -> None:
        """:meth:`seek_to_timestamp` for every assigned partition."""
        await self._positions.seek_all_to_timestamp(timestamp)

    async def position(self, topic: str, partition: int) -> int:
        """Returns the offset of the next message that is handed out."""
        return await self._positions.position(TopicPartition(topic, partition))

    async def committed_offset(self, topic: str, partition: int) -> int | None:
        """Returns the position that the broker has; None if nothing was ever committed.

        Raises ``Unsupported`` if the consumer has no group.
        """
        return await self._positions.committed_offset(TopicPartition(topic, partition))

    async def get_lag(self) -> Mapping[TopicPartition, int]:
        """Returns how many messages of each assigned partition are not settled yet. It asks the broker for their ends.

        Where offsets have gaps, the number is an upper bound.
        """
        return await self._positions.lag()

    # Partitions

    @property
    def assigned_partitions(self) -> frozenset[TopicPartition]:
        """The partitions that this consumer has at the moment."""
        return frozenset(ledger.assignment.tp for ledger in self._running.partitions.ownership.current())

    @property
    def paused_partitions(self) -> frozenset[TopicPartition]:
        """The partitions that are paused, whether they are assigned at the moment or not."""
        return frozenset(self._running.partitions.paused)

    def pause_partitions(self, partitions: Iterable[tuple[str, int | None]]) -> None:
        """Hands out no more messages of these partitions until they are resumed. The others go on.

        What was fetched is kept, what was handed out can be settled, and the pause survives rebalances. A partition
        need not be ours; ``ConfigurationError`` is raised for a topic that this consumer does not read.
        """
        self._session.require_thread("pause_partitions()")
        chosen = named_partitions(partitions, self._topics)
        self._running.partitions.pause(chosen)
        self._running.fetcher.kick()
        self._session.observers("paused", chosen)

    def resume_partitions(self, partitions: Iterable[tuple[str, int | None]]) -> None:
        """Lifts the pause of these partitions; of one that is not paused, the stop: what it stopped for is tried again.

        Each call lifts one of the two. A partition that is paused and has stopped (``PartitionStopped``) stays stopped,
        with a WARNING, until it is resumed once more. So code that pauses and resumes to hold back the flow gives up no
        message.
        """
        self._session.require_thread("resume_partitions()")
        chosen = named_partitions(partitions, self._topics)
        self._running.partitions.resume(chosen)
        self._running.fetcher.kick()
        self._session.observers("resumed", chosen)

    # Looking in

    @property
    def config(self) -> ConsumerConfig:
        """Its settings, from all places they were read from; ``config.group`` is its group."""
        return self._config

    @property
    def capabilities(self) -> Capabilities:
        """What its source can do: whether it is a log or a queue, whether it can seek, and so on."""
        return self._session.capabilities

    def statistics(self) -> Statistics:
        """Returns counts since the start, and levels now. It takes a moment: do not call it for every message."""
        return statistics(self._session, self._life.parts)

    def health(self) -> Health:
        """Returns whether messages flow, and what holds them back if not."""
        return health(self._session, self._life.parts)

    def __repr__(self) -> str:
        return f"<Consumer group {self._config.group!r}, {self._session.state}>"

    # What the calls above need

    @property
    def _running(self) -> Parts:
        if self._life.parts is None:
            raise ConsumerStateError("the consumer is not entered yet. Use it inside `async with … as consumer:`")

        return self._life.parts

    @property
    def _receiving(self) -> Parts:
        parts = self._running
        if parts.workers is not None:
            raise ConsumerStateError(
                "receive() or run() beside a run() would share the messages by chance. Use one of the two at a time"
            )

        return parts

    @property
    def _positions(self) -> Positions:
        return Positions(self._session, self._running)
