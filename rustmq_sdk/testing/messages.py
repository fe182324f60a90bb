"""Messages without a broker: what a handler does with them is recorded."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias

from rustmq_sdk._moments import milliseconds
from rustmq_sdk._runtime.arguments import check_seconds
from rustmq_sdk.message import DONE, FREE, TAKEN, AnyPiece, Message, Messages, Span, settle_after
from rustmq_sdk.testing.deliveries import Deliveries
from rustmq_sdk.values import AckResult, Assignment, Headers, TopicPartition


@dataclass(frozen=True)
class Acked:
    """The message was handled."""


@dataclass(frozen=True)
class Nacked:
    """The message would come again, after ``delay`` seconds; None: when the retry policy says so.

    ``error`` is what the handler raised. It counts for nothing when outcomes are compared.
    """

    delay: float | None = None
    reason: str | None = None
    error: Exception | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Rejected:
    """The message would go to the dead letters."""

    reason: str | None = None
    error: Exception | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Released:
    """The message was given back, as by a cancelled handler: it would come again, and no attempt is counted."""


Outcome: TypeAlias = Acked | Nacked | Rejected | Released | None
"""How a message was settled; None if it was not."""

Handler: TypeAlias = Callable[[Any], Awaitable[object] | object]


class RecordedMessage(Message, gc=False, eq=False):
    """A message that knows how it was settled."""

    @property
    def outcome(self) -> Outcome:
        """How the message was settled; None while it is not. Settling it again changes nothing."""
        return outcome_of(self)


def message(
    payload: bytes | str | None = b"",
    *,
    key: bytes | str | None = None,
    headers: Headers = (),
    topic: str = "topic",
    partition: int | None = 0,
    offset: int | None = 0,
    timestamp: int | datetime = 0,
    attempt: int = 1,
) -> RecordedMessage:
    """Makes a message as a consumer would deliver it. Its ``outcome`` tells how it was settled.

    Args:
        payload: the body; str is encoded as UTF-8, None is a tombstone.
        key: the key; str is encoded as UTF-8.
        headers: names and values.
        topic: the topic that it seems to come from.
        partition: the partition that it seems to come from; None as on queues.
        offset: the offset that it seems to have.
        timestamp: milliseconds since the epoch, or a ``datetime`` with a time zone.
        attempt: which delivery of the message this is; starts at 1.

    Raises:
        TypeError: a payload or key that is neither bytes, str nor None.
    """
    assignment = Assignment(TopicPartition(topic, partition), None)
    piece = Deliveries(1, assignment, owner=_Recorder(), attempts=[attempt])
    body, name = _encoded("payload", payload), _encoded("key", key)
    moment = milliseconds("timestamp", timestamp)
    return RecordedMessage(body, name, tuple(headers), offset, moment, piece, 0)


async def handle(handler: Handler, messages: Message | Iterable[Message], *, batch: bool = False) -> list[Outcome]:
    """Calls a handler with messages made by :func:`message`, and settles them as ``consumer.run(handler)`` would.

    Returning acks, an exception nacks, ``Retry`` and ``Reject`` are obeyed, and what the handler settled itself stays
    as it is. The exceptions are in the outcomes, not raised; a ``BaseException`` (a cancellation) releases the message
    and goes on. A plain function is called right here, where ``run()`` would use a thread.

    Args:
        handler: async or plain.
        messages: one or many.
        batch: one call with all of them, as with ``run(batch_size=…)``; else one call for each, in order.

    Returns:
        The outcome of each message, in order.
    """
    given = [messages] if isinstance(messages, Message) else list(messages)
    if batch:
        await _call(
            handler, Messages(given, [(message._piece, message._index, message._index + 1) for message in given])
        )
    else:
        for each in given:
            await _call(handler, each)

    return [outcome_of(each) for each in given]


def outcome_of(message: Message) -> Outcome:
    """Returns how a message made by :func:`message` was settled; None if it was not."""
    recorder = message._piece.owner
    assert isinstance(recorder, _Recorder), "only messages made by testing.message() keep a record"
    if recorder.outcome is None and message._piece[message._index] == DONE:
        return Acked()

    return recorder.outcome


async def _call(handler: Handler, subject: Message | Messages) -> None:
    error: BaseException | None = None
    try:
        result = handler(subject)
        if inspect.isawaitable(result):
            await result
    except BaseException as raised:
        error = raised
        if not isinstance(raised, Exception):
            raise
    finally:
        if isinstance(subject, Messages):
            for each in subject:
                await settle_after(each, error)
        else:
            await settle_after(subject, error)


class _Recorder:
    """Fills :class:`~rustmq_sdk.message.Settler` for one message: the first verb counts."""

    def __init__(self) -> None:
        self.outcome: Outcome = None

    async def ack(self, piece: AnyPiece, index: int, durable: bool) -> AckResult:
        result = self._settle(piece, index, DONE, Acked())
        return AckResult.DURABLE if durable and result is AckResult.RECORDED else result

    async def ack_spans(self, spans: Iterable[Span], durable: bool) -> AckResult:
        results = [await piece.owner.ack(piece, i, durable) for piece, first, end in spans for i in range(first, end)]
        settled = [result for result in results if result is not AckResult.DUPLICATE]
        return settled[0] if settled else AckResult.DUPLICATE

    async def nack(
        self, message: Message, delay: float | None, reason: str | None, error: Exception | None
    ) -> AckResult:
        if delay is not None:
            check_seconds("delay", delay, fix="Write nack(delay=0) for at once")

        return self._settle(message._piece, message._index, TAKEN, Nacked(delay, reason, error))

    async def reject(self, message: Message, reason: str | None, error: Exception | None) -> AckResult:
        return self._settle(message._piece, message._index, TAKEN, Rejected(reason, error))

    def release(self, message: Message) -> None:
        self._settle(message._piece, message._index, TAKEN, Released())

    def _settle(self, piece: AnyPiece, index: int, value: int, outcome: Outcome) -> AckResult:
        if piece[index] != FREE:
            return AckResult.DUPLICATE

        piece[index] = value
        self.outcome = outcome
        return AckResult.RECORDED


def _encoded(name: str, value: bytes | str | None) -> bytes | None:
    if isinstance(value, str):
        return value.encode()

    if value is None or isinstance(value, bytes):
        return value

    raise TypeError(f"{name} has to be bytes, str or None, not {type(value).__name__}. Encode it: json.dumps(…)")
