"""The producer: what it is given is durable when it says so, and nothing fails unheard."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Sequence
from datetime import datetime
from random import Random
from types import TracebackType
from typing import Literal, cast, final

import anyio
from anyio.abc import TaskGroup

from rustmq_sdk._core.outbox import PendingSend, Unflushed
from rustmq_sdk._core.outgoing import outgoing, outgoing_batch
from rustmq_sdk._core.routing import Submission
from rustmq_sdk._error_text import repr_of
from rustmq_sdk._log import log
from rustmq_sdk._runtime.dispatcher import Dispatcher
from rustmq_sdk._runtime.home import Home
from rustmq_sdk._runtime.room import Room
from rustmq_sdk._runtime.seeding import new_rng
from rustmq_sdk.config import ProducerConfig
from rustmq_sdk.errors import BufferFull, ConfigurationError, ConsumerStateError, RustMQError, TransientDriverError
from rustmq_sdk.slots import Sink
from rustmq_sdk.values import Headers, OutgoingMessage, SentMessage

# Every message ends within send_timeout, stored or failed. Leaving waits a moment longer, to hear how.
_LAST_ANSWERS = 1.0


@final
class Producer:
    """Sends messages; an async context manager, to be entered once. ``client.producer()`` makes one.

    It belongs to the event loop it was entered in: in another one its awaitable calls are a ``ConsumerStateError``.

    Promises:
        1. *Durable on return*: what :meth:`send` and :meth:`send_batch` return is stored.
        2. *In order*: the messages of one partition, and so those of one key, are stored in the order of the calls,
           through retries. One that failed for good is left out, and those after it go on.
        3. *Once*, where the sink recognises a repeated append (capability ``idempotent_append``): a lost answer is
           asked for again. Elsewhere it is :class:`~rustmq_sdk.OutcomeUnknown`, and not repeated.
        4. *In time*: each message is stored or has failed ``send_timeout`` seconds after the call.
        5. *Bounded*: at most ``max_buffered`` messages wait; the number of tasks is fixed.

    Messages that are sent at the same time share appends: those that come while an append of their partition is under
    way go with the next one. Only messages of :meth:`send_nowait`, for which nobody waits, wait up to ``linger``
    seconds for company.

    Args:
        sink: where to.
        config: the settings.
        idempotent: the sink's capability ``idempotent_append``.
        append_messages: the sink's capability of that name.
        rng: where jitter comes from, and the partition that messages without a key begin with.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        config: ProducerConfig | None = None,
        idempotent: bool = False,
        append_messages: int = 0,
        rng: Random | None = None,
    ) -> None:
        self._config = config or ProducerConfig()
        self._room = Room(self._config.max_buffered)
        self._unflushed = Unflushed()
        self._flushes: deque[tuple[Unflushed, anyio.Event]] = deque()
        self._failure: Exception | None = None
        self._failed: dict[str, int] = {}
        self._state: Literal["new", "open", "closing", "closed"] = "new"
        self._tasks: TaskGroup | None = None
        self._task_id: int | None = None
        self._home: Home
        self._dispatcher = Dispatcher(
            sink,
            config=self._config,
            idempotent=idempotent,
            append_messages=append_messages,
            settled=self._room.give,
            failed=self._note_failure,
            rng=rng or new_rng(),
        )

    async def __aenter__(self) -> Producer:
        """Starts the senders."""
        if self._state != "new":
            raise ConsumerStateError(
                f"this producer is {self._state} already, and a producer is entered once. Ask the client for another"
            )

        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._task_id = anyio.get_current_task().id
        self._home = Home("producer")
        self._dispatcher.start(self._tasks)
        self._state = "open"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Sends what waits, for at most ``send_timeout`` seconds, even when cancelled, and stops.

        Raises:
            Exception: the first failure of a message of ``send_nowait()`` that no ``flush()`` has raised. If the block
                ends with an exception already, that one gets a note about it instead.
        """
        if anyio.get_current_task().id != self._task_id:
            raise ConsumerStateError(
                "this producer is being left in another task than the one that entered it, as happens in "
                "async-generator fixtures of pytest-asyncio. Enter it inside the test, or use anyio's pytest plugin, "
                "whose fixtures keep to one task"
            )

        assert self._tasks is not None
        self._state = "closing"
        try:
            with anyio.move_on_after(self._config.send_timeout + _LAST_ANSWERS, shield=True):
                await self._settle_all()
        finally:
            self._dispatcher.stop()
            self._state = "closed"
            await self._tasks.__aexit__(None, None, None)

        self._raise_failures(error)

    async def send(
        self,
        topic: str,
        payload: bytes | str | None,
        *,
        key: bytes | str | None = None,
        headers: Headers | None = None,
        partition: int | None = None,
        timestamp: int | datetime | None = None,
    ) -> SentMessage:
        """Sends one message, and returns where it is stored when it is durable.

        Cancelling it does not take the message back: it may be sent all the same.

        Args:
            topic: created where the driver creates topics on send.
            payload: text becomes UTF-8; None is a tombstone.
            key: messages of one key go to one partition, chosen as Kafka's Java client does; without a key the
                partitions take turns, a batch each.
            headers: ``(name, value)`` pairs.
            partition: overrides the choice by key.
            timestamp: milliseconds since the epoch, or a ``datetime`` with a time zone; None is now.

        Raises:
            TypeError: the payload or key is neither bytes nor str.
            ConfigurationError: there is no such partition, or the timestamp is a ``datetime`` without a time zone.
            UnknownTopic: the topic does not exist, and the driver does not create topics.
            DriverError: it is not stored: the sink refused it, or did not take it within ``send_timeout``.
            OutcomeUnknown: it may or may not be stored.
        """
        self._check_open()
        self._home.require("send()")
        message = outgoing(payload, key, headers, partition, timestamp)
        (sent,) = await self._send(_topic(topic), [message])
        return sent

    async def send_batch(
        self, topic: str, messages: Iterable[bytes | str | OutgoingMessage | None]
    ) -> Sequence[SentMessage]:
        """Sends many messages, and returns where each is stored, in their order, when all of them are durable.

        Much cheaper than one :meth:`send` after the other. If it raises, some of the messages may be stored; a note on
        the exception says how many.

        Raises:
            Exception: what :meth:`send` raises, once the fate of every message is known.
        """
        self._check_open()
        self._home.require("send_batch()")
        topic = _topic(topic)
        outgoings = outgoing_batch(messages)
        room = self._config.max_buffered
        if 0 < len(outgoings) <= room:
            return await self._send(topic, outgoings)

        await anyio.lowlevel.checkpoint()
        sent: list[SentMessage] = []
        for first in range(0, len(outgoings), room):
            try:
                sent += await self._send(topic, outgoings[first : first + room])
            except Exception as error:
                error.add_note(f"{len(sent)} messages in front of these are stored.")
                raise

        return sent

    def send_nowait(
        self,
        topic: str,
        payload: bytes | str | None,
        *,
        key: bytes | str | None = None,
        headers: Headers | None = None,
        partition: int | None = None,
        timestamp: int | datetime | None = None,
    ) -> None:
        """Takes one message to be sent within ``linger`` seconds, and returns at once.

        If it cannot be stored, :meth:`flush` raises that, or leaving the producer does. For the arguments see
        :meth:`send`.

        Raises:
            BufferFull: ``max_buffered`` messages wait already. This one was not taken: ``await flush()``, or use
                ``send()``, which waits.
            TypeError: the payload or key is neither bytes nor str.
        """
        self._check_open()
        message = outgoing(payload, key, headers, partition, timestamp)
        topic = _topic(topic)
        if not self._room.take_nowait(1):
            raise BufferFull(
                f"max_buffered={self._config.max_buffered} messages wait to be sent already. "
                "Call `await producer.flush()` first, use send(), which waits, or raise max_buffered"
            )

        if not self._dispatcher.join(topic, message, self._unflushed):
            self._dispatcher.submit(topic, Submission([message], None, anyio.current_time(), self._unflushed))

    async def flush(self) -> None:
        """Returns when everything sent before is stored.

        Raises:
            Exception: the first failure of messages of ``send_nowait()`` since the last flush; its note says how many
                failed. What ``send()`` raised is not raised again.
        """
        self._check_open()
        self._home.require("flush()")
        await self._settle_all()
        self._raise_failures(None)

    async def _send(self, topic: str, messages: Sequence[OutgoingMessage]) -> Sequence[SentMessage]:
        born = anyio.current_time()
        stored = anyio.Event()
        pending = PendingSend(len(messages), stored.set)

        submitted = False

        def submit() -> None:
            nonlocal submitted
            submitted = True
            self._dispatcher.submit(topic, Submission(messages, pending, born, self._unflushed))

        if self._room.take_nowait(len(messages)):
            submit()
        else:
            with anyio.move_on_after(self._config.send_timeout):
                await self._room.take(len(messages), submit)

            # Not "if the wait was cut short": room may have been found in that very moment.
            if not submitted:
                raise self._no_room()

        await stored.wait()
        if pending.error is None:
            return cast("Sequence[SentMessage]", pending.results)

        error = _copy_of(pending.error)
        if len(messages) > 1:
            error.add_note(f"Of these {len(messages)} messages {pending.stored} are known to be stored.")

        raise error

    def _no_room(self) -> TransientDriverError:
        return TransientDriverError(
            f"not sent within send_timeout={self._config.send_timeout:g} s: all that time "
            f"max_buffered={self._config.max_buffered} messages were waiting already",
            slot="sink",
            operation="append",
        )

    async def _settle_all(self) -> None:
        """Waits until all that was given to us so far is stored or has failed."""
        settled = anyio.Event()
        unflushed, self._unflushed = self._unflushed, Unflushed()
        unflushed.tell = settled.set
        if not unflushed.unsettled:
            settled.set()

        self._flushes.append((unflushed, settled))
        self._dispatcher.hurry()
        # For what earlier flushes waited for as well: they may have been cancelled.
        for _, event in list(self._flushes):
            await event.wait()

        while self._flushes and not self._flushes[0][0].unsettled:
            self._flushes.popleft()

    def _note_failure(self, topic: str, count: int, error: Exception) -> None:
        self._failure = self._failure or error
        self._failed[topic] = self._failed.get(topic, 0) + count

    def _raise_failures(self, instead_of: BaseException | None) -> None:
        if self._failure is None:
            return

        error, self._failure = _copy_of(self._failure), None
        failed, self._failed = self._failed, {}
        counts = ", ".join(f"{count} to {topic!r}" for topic, count in failed.items())
        note = f"Messages of send_nowait() that were not stored, or may not be: {counts}."
        if instead_of is None:
            error.add_note(note)
            raise error

        instead_of.add_note(f"{note} The first failure: {type(error).__name__}: {error}")
        text = "%s The producer's block ended with %s"
        log(logging.ERROR, "sends_failed", text, note, repr_of(instead_of), exc_info=error)

    def _check_open(self) -> None:
        if self._state == "open":
            return

        if self._state == "new":
            raise ConsumerStateError("the producer is not started yet. Use it inside `async with … as producer:`")

        raise ConsumerStateError(f"the producer is {self._state}. Move the call inside its `async with` block")


def _copy_of(error: Exception) -> Exception:
    """An error that one append gives to many callers, for one of them to raise, annotate and keep."""
    if not isinstance(error, RustMQError):
        return error

    # Not copy.copy(): it would call the constructors, whose arguments an exception does not keep.
    copy = type(error).__new__(type(error), *error.args)
    copy.__dict__.update(error.__dict__)
    copy.__notes__ = list(getattr(error, "__notes__", ()))
    copy.__cause__ = error.__cause__
    return copy.with_traceback(error.__traceback__)


def _topic(name: object) -> str:
    if isinstance(name, str) and name:
        return name

    raise ConfigurationError(
        "expected a topic's name", field="topic", value=name, fix='Write for example send("orders", payload)'
    )
