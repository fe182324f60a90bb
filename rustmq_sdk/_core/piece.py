"""One piece of deliveries: a state byte a message, and what they have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, compress
from typing import TYPE_CHECKING, TypeAlias

from rustmq_sdk.message import DONE, FREE, TAKEN, WATCH, Message, Settler
from rustmq_sdk.values import Assignment

if TYPE_CHECKING:
    from rustmq_sdk._core.ledger import Ledger

_OPEN_TO_DONE = bytes(DONE if state in (FREE, WATCH) else state for state in range(256))
_UNSETTLED = bytes(state != DONE for state in range(256))
_HOLDS = (FREE, WATCH, TAKEN)

Holder: TypeAlias = "tuple[Piece, int, Holder | None]"
"""A slot that keeps a key busy, and in a batch the one of the same key before it."""


class Piece(bytearray):
    """The state bytes of one piece of deliveries, and what they have in common. Compared by identity.

    It never refers to its messages: they refer to it, and such a cycle would never be collected.
    """

    __slots__ = (
        "assignment",
        "attempt",
        "busy",
        "counted",
        "hooks",
        "largest",
        "ledger",
        "loaded_at",
        "number",
        "offsets",
        "owner",
        "parent",
        "parent_index",
        "size",
        "times",
    )

    __hash__ = object.__hash__  # type: ignore[assignment]  # bytearray is unhashable; a piece is its identity

    def __init__(self, ledger: Ledger, offsets: Sequence[int], *, size: int, largest: int, owner: Settler) -> None:
        super().__init__(len(offsets))
        self.ledger = ledger
        self.assignment: Assignment = ledger.assignment
        self.busy: dict[bytes | None, Holder] | None = ledger.busy
        """Order by key: the ledger's table; None for a retry, which has its place there already."""
        self.owner = owner
        self.offsets = offsets
        self.number = 0
        """Of its first message, counting all that a log's assignment ever brought."""
        self.attempt = 1
        self.counted = 0
        self.size = size
        """Bytes that count as in flight for it: at first those of all its messages."""
        self.largest = largest or size
        self.loaded_at = 0.0
        self.hooks: dict[int, bytes | None] | None = None
        """Order by key: slots whose settling frees a key that others wait for."""
        self.times: dict[int, float] | None = None
        """When each slot was handed out (loop time), kept only where messages are taken back after a time."""
        self.parent: Piece | None = None
        self.parent_index = 0

    def __eq__(self, other: object) -> bool:
        return self is other

    def attempt_at(self, index: int) -> int:
        """Attempts are counted by piece: a retry has a piece of its own."""
        return self.attempt

    def id_at(self, index: int, offset: int | None) -> str:
        """Topic, partition and offset name a message of a log for good."""
        return self.assignment.tp.at(offset)

    def place_at(self, index: int) -> str:
        """How log lines name a message."""
        return self.assignment.tp.at(self.offsets[index])

    def handed_out(self, first: int, end: int, now: float) -> None:
        """Notes when, where messages are taken back after a time."""
        if self.times is None:
            self.times = {}

        self.times.update(dict.fromkeys(range(first, end), now))

    def settle_range(self, first: int, end: int) -> int:
        """Settles what is FREE or WATCH in ``[first, end)``; how many that were."""
        part = self[first:end]
        before = part.count(DONE)
        part = part.translate(_OPEN_TO_DONE)
        self[first:end] = part
        return part.count(DONE) - before

    def finished(self) -> int:
        """Slots that are settled."""
        return self.count(DONE)

    def first_unsettled(self) -> int:
        """The index of the first slot that is not settled; the length if all are."""
        return len(self) - len(self.lstrip(b"\x01"))

    def unsettled_edges(self) -> Iterator[int]:
        """The first offset of each unsettled run and one past its last, in turn.

        In a ragged window there is a run every few messages: so no step here is one of Python's, neither a message nor
        a run.
        """
        # An unsettled slot is a 1, and where a byte differs from the one before it, there is an edge.
        unsettled = int.from_bytes(self.translate(_UNSETTLED), "little")
        turns = (unsettled ^ unsettled << 8).to_bytes(len(self) + 1, "little")
        offsets = self.offsets
        if isinstance(offsets, range):
            return compress(range(offsets.start, offsets.stop + 1), turns)

        edges = list(compress(range(len(self) + 1), turns))
        ends = [offsets[end - 1] + 1 for end in edges[1::2]]
        return chain.from_iterable(zip(map(offsets.__getitem__, edges[::2]), ends, strict=True))


class Child(Piece):
    """One slot for a later attempt of a message; its name is its parent's."""

    __slots__ = ()

    def __init__(self, parent: Piece, index: int, attempt: int) -> None:
        super().__init__(parent.ledger, (parent.offsets[index],), size=0, largest=0, owner=parent.owner)
        self.busy = None
        self.attempt = attempt
        self.parent = parent
        self.parent_index = index
        self[0] = WATCH

    def id_at(self, index: int, offset: int | None) -> str:
        """As of the first delivery."""
        assert self.parent is not None
        return self.parent.id_at(self.parent_index, offset)

    def place_at(self, index: int) -> str:
        """As of the first delivery."""
        assert self.parent is not None
        return self.parent.place_at(self.parent_index)


def piece_of(message: Message) -> Piece:
    """The piece of a message that this package has delivered."""
    piece = message._piece
    assert isinstance(piece, Piece)
    return piece


def newest_unsettled(holder: Holder | None) -> Holder | None:
    """The first of the chain that still holds its key (FREE, WATCH or TAKEN, not DONE or STALE); None if none does."""
    while holder is not None and holder[0][holder[1]] not in _HOLDS:
        holder = holder[2]

    return holder
