"""One partition's messages on their way to the user."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rustmq_sdk._core.ledger import Ledger
from rustmq_sdk._core.log_book import LogBook
from rustmq_sdk._core.piece import Piece, newest_unsettled, piece_of
from rustmq_sdk.errors import PartitionStopped
from rustmq_sdk.message import FREE, OPEN, WATCH, Build, Message, Span


@dataclass(slots=True, eq=False)
class Waiting:
    """A piece whose messages are not built yet: that is done when it is its turn, not when it is fetched."""

    piece: Piece
    records: Sequence[Any]
    build: Build
    first: int = 0
    """Records below this index were handed out already."""

    def __len__(self) -> int:
        return len(self.piece) - self.first

    def load(self, most: int, now: float) -> tuple[list[Message], Span | None]:
        """Builds up to ``most`` messages, in order. What was settled before a restart is left out.

        Answers with them the run of slots that they fill, or None where that takes a closer look.
        """
        piece, first = self.piece, self.first
        end = min(first + most, len(piece))
        records = self.records if end - first == len(piece) else self.records[first:end]
        messages = self.build(records, piece, first)
        self.first = end
        piece.loaded_at = now
        due = piece.ledger.due_attempts
        # Something may be settled before it is delivered: before a restart, or its lease has run out.
        settled = piece.count(FREE, first, end) + piece.count(WATCH, first, end) < end - first
        if not (settled or due):
            return messages, (piece, first, end)

        if settled:
            messages = [message for message in messages if piece[message._index] in OPEN]

        return [_as_retry(message, due) for message in messages] if due else messages, None

    def next_index(self) -> int | None:
        """The index of the next record that will be handed out; None if all that is left was settled before."""
        piece = self.piece
        return next((index for index in range(self.first, len(piece)) if piece[index] in OPEN), None)

    def unsettled(self) -> int:
        """Records that will be handed out."""
        return self.piece.count(FREE, self.first) + self.piece.count(WATCH, self.first)


class Obstacle(Waiting):
    """A place where its partition stops, once all that was fetched before it was handed out.

    Args:
        piece: one slot that nobody can settle meanwhile (TAKEN): it holds the watermark.
        reached: stops the partition.
    """

    __slots__ = ("_reached",)

    def __init__(self, piece: Piece, reached: Callable[[], None]) -> None:
        super().__init__(piece, (), lambda *_: [])
        self._reached = reached

    def load(self, most: int, now: float) -> tuple[list[Message], Span | None]:
        """Nothing to hand out; stops the partition instead."""
        self.first = len(self.piece)
        self._reached()
        return [], None


def _as_retry(message: Message, due: dict[int, int]) -> Message:
    """The message as the attempt it would have been, had the consumer not been restarted meanwhile."""
    offset = message.offset
    attempts = due.pop(offset, None) if offset is not None else None
    if attempts is None:
        return message

    piece = piece_of(message)
    parent, index = piece.ledger.take(piece, message._index)
    child = piece.ledger.retry(parent, index, attempts + 1)
    child.loaded_at = piece.loaded_at
    return Message(message.payload, message.key, message.headers, offset, message.timestamp, child, 0)


@dataclass(slots=True, eq=False)
class Lane:
    """What of one assignment waits to be delivered, and whether it may be."""

    ledger: Ledger
    front: deque[Message] = field(default_factory=deque)
    """Built messages that come first: retries, released keys, and what a pause took back."""
    waiting: deque[Waiting] = field(default_factory=deque)
    parked: dict[bytes | None, deque[Message]] = field(default_factory=dict)
    """Order by key: messages after an unsettled one of the same key."""
    paused: bool = False
    stopped: PartitionStopped | None = None
    draining: bool = False
    pressed_at: int | None = None
    """The watermark at which its checkpoint was found nearly full of what is settled above."""
    queued: bool = False
    """In the buffer's rotation."""

    @property
    def log(self) -> LogBook:
        """The ledger, where the source is a log."""
        assert isinstance(self.ledger, LogBook)
        return self.ledger

    @property
    def deliverable(self) -> bool:
        """Nothing forbids handing out its messages."""
        return not (self.paused or self.draining or self.stopped is not None)

    @property
    def at_obstacle(self) -> bool:
        """What comes next is the place where the partition stops."""
        return not self.front and bool(self.waiting) and isinstance(self.waiting[0], Obstacle)

    @property
    def pressed(self) -> bool:
        """No new messages until the watermark has moved: the checkpoint could not remember more of them.

        Asked of the watermark and not of the next commit: without auto-commit that may wait for these very messages.
        Where nothing that was fetched is unsettled, only new messages can move the watermark.
        """
        if self.pressed_at is None:
            return False

        watermark = self.ledger.watermark
        return watermark <= self.pressed_at and watermark < self.ledger.scanned

    @property
    def backlog(self) -> int:
        """Messages in this lane that were not handed out and are not parked."""
        return len(self.front) + sum(map(len, self.waiting))

    @property
    def parked_messages(self) -> int:
        """Messages held back by order."""
        return sum(map(len, self.parked.values()))

    def unsettled_slots(self) -> int:
        """Slots that are in the user's hands, in the buffer, or parked; not those waiting for a retry."""
        ledger = self.ledger
        roots = sum(piece.count(FREE) + piece.count(WATCH) for piece in ledger.open.values())
        return roots + sum(child[0] == WATCH for child in ledger.children.values())

    def forget_settled_keys(self) -> None:
        """Keys whose last message is settled hold nobody back; with many different keys they would add up."""
        ledger = self.ledger
        if len(ledger.busy) > 2 * ledger.in_flight + 1000:
            unsettled = {key: slot for key, slot in ledger.busy.items() if newest_unsettled(slot)}
            # In place: the pieces refer to it.
            ledger.busy.clear()
            ledger.busy.update(unsettled)
