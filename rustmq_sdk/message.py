"""What the user holds: a message, or a batch of messages. Each message is settled exactly once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from types import TracebackType
from typing import Any, Protocol, TypeAlias, final

import msgspec

from rustmq_sdk.errors import Reject, Retry
from rustmq_sdk.values import AckResult, Assignment, Headers

# One state byte a delivery. Everything but FREE makes ack() take the slow path, so a rare feature costs nothing while
# it is unused: it only has to make the byte non-zero.
FREE = 0
"""Unsettled, and nobody needs to know the moment it is settled."""
DONE = 1
"""The message is settled."""
WATCH = 2
"""Unsettled, and somebody looks closer when it is settled."""
TAKEN = 3
"""Unsettled, but no longer this handle's to settle: a retry or a dead letter is on its way."""
STALE = 4
"""Fenced: the partition was lost, or moved by a seek."""

OPEN = (FREE, WATCH)
"""Unsettled, and this handle's to settle."""


_RECORDED = AckResult.RECORDED
"""A global: looking a member up on its enum costs more than all the rest of ``ack()`` (Python 3.11)."""


class Settler(Protocol):
    """Whom a message tells that it is settled."""

    async def ack(self, piece: AnyPiece, index: int, durable: bool) -> AckResult: ...
    async def ack_spans(self, spans: Collection[Span], durable: bool) -> AckResult: ...
    async def nack(
        self, message: Message, delay: float | None, reason: str | None, error: Exception | None
    ) -> AckResult: ...
    async def reject(self, message: Message, reason: str | None, error: Exception | None) -> AckResult: ...
    def release(self, message: Message) -> None: ...


class AnyPiece(Protocol):
    """The state bytes of one piece of deliveries, and what they have in common."""

    @property
    def owner(self) -> Settler: ...
    @property
    def assignment(self) -> Assignment: ...
    def attempt_at(self, index: int) -> int: ...
    def id_at(self, index: int, offset: int | None) -> str: ...
    def __getitem__(self, index: int, /) -> int: ...
    def __setitem__(self, index: int, value: int, /) -> None: ...


Span = tuple[AnyPiece, int, int]
"""A run of deliveries: their state bytes, the first index and one past the last."""

Build: TypeAlias = "Callable[[Sequence[Any], AnyPiece, int], list[Message]]"
"""``build(records, piece, first)``: one :class:`Message` a record, the i-th with ``_piece=piece, _index=first + i``.

A driver's function. Called by the runtime when a piece is loaded for delivery, not when it is fetched. Must not block
and not keep anything.
"""


class Message(msgspec.Struct, gc=False, eq=False, repr_omit_defaults=False):
    """One delivery of one message. A retry is a new ``Message`` with ``attempt`` one higher.

    Attributes:
        payload: the body; None is a tombstone.
        key: messages of one key share a partition; None where there is none.
        headers: ``(name, value)`` pairs in order.
        offset: its place in the partition; None on queues without one.
        timestamp: milliseconds since the epoch, as the broker has it.
    """

    # A Struct without garbage-collector tracking costs 100 ns to build from a record, a slotted class 240. That is
    # safe because a piece never refers back to its messages: there is no cycle to collect.
    payload: bytes | None
    key: bytes | None
    headers: Headers
    offset: int | None
    timestamp: int
    _piece: AnyPiece
    _index: int

    @property
    def topic(self) -> str:
        """The topic it was read from."""
        return self._piece.assignment.tp.topic

    @property
    def partition(self) -> int | None:
        """The partition it was read from; None on queues."""
        return self._piece.assignment.tp.partition

    @property
    def attempt(self) -> int:
        """How often the message was handed out, this time included: 1 for the first."""
        return self._piece.attempt_at(self._index)

    @property
    def id(self) -> str:
        """A name that stays the same when the message comes again: ``topic[partition]@offset`` on logs."""
        return self._piece.id_at(self._index, self.offset)

    @property
    def fence(self) -> int | None:
        """A number that grows with every change of the partition's owner, to fence writes to other systems with.

        Send it along with a write, and let the other system refuse a number that is lower than one it has seen. It is
        None where the source does not know its owners (capability ``fences``).
        """
        return self._piece.assignment.epoch

    def text(self, encoding: str = "utf-8") -> str:
        """Returns the payload as text, and ``""`` for a tombstone. Raises ``UnicodeDecodeError`` if it is not UTF-8."""
        return (self.payload or b"").decode(encoding)

    def json(self) -> Any:
        """Returns the payload, decoded from JSON; None for a tombstone.

        Raises:
            ValueError: it is not JSON (``msgspec.DecodeError``).
        """
        return None if self.payload is None else msgspec.json.decode(self.payload)

    async def ack(self, durable: bool = False) -> AckResult:
        """Settles the message: it was handled, and need not come again.

        The call never waits for a commit, a rebalance or an open circuit. With ``durable=True`` it asks for a commit
        now, and waits until the broker has it, for at most ``commit_timeout`` seconds (then ``AckResult.PENDING``).

        Raises:
            StalePartition: only with ``durable=True``; otherwise a lost partition is ``AckResult.STALE``.
        """
        piece = self._piece
        if not (piece[self._index] or durable):
            piece[self._index] = DONE
            return _RECORDED

        return await piece.owner.ack(piece, self._index, durable)

    async def nack(self, delay: float | None = None, reason: str | None = None) -> AckResult:
        """Says that handling has failed: the message comes again as a new ``Message`` after ``delay`` seconds.

        With ``delay=None`` the retry policy decides: when it comes again, and when it is given up and dead-lettered.
        A delay that is given here is obeyed as long as there are attempts left.

        Raises:
            TypeError: ``delay`` is no number.
            ConfigurationError: it is negative or not finite. The message is still unsettled.
        """
        return await self._piece.owner.nack(self, delay, reason, None)

    async def reject(self, reason: str | None = None) -> AckResult:
        """Gives the message up: it goes to the dead letters at once. The position moves only once it is stored."""
        return await self._piece.owner.reject(self, reason, None)

    async def __aenter__(self) -> Message:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Acks; nacks on an exception, which goes on; obeys ``Retry`` and ``Reject``, which end here.

        A cancelled block releases the message: it comes again and no attempt is counted.
        """
        return await settle_after(self, error)

    def __repr__(self) -> str:
        return f"<Message {self.id} attempt {self.attempt}, {len(self.payload or b'')} bytes>"


async def settle_after(message: Message, error: BaseException | None) -> bool:
    """Settles ``message`` by how its handling ended; True if ``error`` was an instruction and is dealt with."""
    owner = message._piece.owner
    if error is None:
        await message.ack()
        return False

    if isinstance(error, Retry):
        await owner.nack(message, error.delay, error.reason, error)
        return True

    if isinstance(error, Reject):
        await owner.reject(message, error.reason, error)
        return True

    if isinstance(error, Exception):
        await owner.nack(message, None, None, error)
    else:
        owner.release(message)

    return False


def least_certain(results: Collection[AckResult]) -> AckResult:
    """What settling several messages came to, in one word; DUPLICATE only if all of them were settled before."""
    return next((result for result in _LEAST_CERTAIN_FIRST if result in results), AckResult.DUPLICATE)


_LEAST_CERTAIN_FIRST = (AckResult.STALE, AckResult.PENDING, AckResult.RECORDED, AckResult.DURABLE)


@final
class Messages(list[Message]):
    """A batch as ``receive_batch()`` hands it out: a list, and the verbs of a message for all of it.

    The verbs settle every message *received in this batch* that is not settled yet, even if the list was changed
    since; what was settled one by one before stays as it is.
    """

    __slots__ = ("_received", "_spans")

    def __init__(self, messages: Sequence[Message], spans: list[Span]) -> None:
        super().__init__(messages)
        # A handler may take out what it has handled, and fail after that. Kept as given: nobody else has it.
        self._received = messages
        self._spans = spans

    async def ack(self, durable: bool = False) -> AckResult:
        """Acks every message of the batch that is unsettled. That is far cheaper than :meth:`Message.ack` on each.

        Returns the least certain of all results: STALE if any message is, then PENDING, RECORDED or DURABLE, and
        DUPLICATE only if there was nothing left to settle.
        """
        return await self._spans[0][0].owner.ack_spans(self._spans, durable)

    async def nack(self, delay: float | None = None, reason: str | None = None) -> AckResult:
        """Nacks every message that is unsettled, as :meth:`Message.nack` does; returns the least certain result."""
        return least_certain([await message.nack(delay, reason) for message in self._received])

    async def reject(self, reason: str | None = None) -> AckResult:
        """Rejects every message that is unsettled, as :meth:`Message.reject` does; returns the least certain result."""
        return least_certain([await message.reject(reason) for message in self._received])

    async def __aenter__(self) -> Messages:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """As for one message, for everything that is unsettled."""
        if error is None:
            await self.ack()
            return False

        handled = False
        for message in self._received:
            handled = await settle_after(message, error)

        return handled
