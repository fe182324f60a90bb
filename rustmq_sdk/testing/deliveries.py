"""State bytes for messages that were not delivered by a consumer."""

from __future__ import annotations

from collections.abc import Sequence

from rustmq_sdk.message import Settler
from rustmq_sdk.slots import Fetched
from rustmq_sdk.values import Assignment


class Deliveries(bytearray):
    """Fills :class:`~rustmq_sdk.message.AnyPiece`: one byte a message, compared by identity.

    Args:
        count: how many messages there are.
        assignment: the assignment that they belong to.
        owner: the object that ``nack()`` and the like are told to; without one only a plain ``ack()`` works.
        attempts: the attempt of each message; empty: all are at their first.
    """

    __slots__ = ("_attempts", "_owner", "assignment")

    def __init__(
        self, count: int, assignment: Assignment, *, owner: Settler | None = None, attempts: Sequence[int] = ()
    ) -> None:
        super().__init__(count)
        self.assignment = assignment
        self._owner = owner
        self._attempts = attempts

    __hash__ = object.__hash__  # type: ignore[assignment]  # a bytearray has none
    __eq__ = object.__eq__

    @classmethod
    def of(cls, piece: Fetched) -> Deliveries:
        """Makes state bytes for the records of one fetched piece."""
        return cls(len(piece.records), piece.assignment, attempts=piece.attempts)

    @property
    def owner(self) -> Settler:
        """The object that messages tell when they are settled."""
        if self._owner is None:
            raise RuntimeError("this message was fetched by hand: nobody listens to how it is settled")

        return self._owner

    def attempt_at(self, index: int) -> int:
        """Returns the attempt of one message; 1 if nobody has counted."""
        return self._attempts[index] if self._attempts else 1

    def id_at(self, index: int, offset: int | None) -> str:
        """Returns a name made of topic, partition and offset, or of the index where there is no offset."""
        return self.assignment.tp.at(index if offset is None else offset)
