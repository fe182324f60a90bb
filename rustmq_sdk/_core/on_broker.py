"""What the broker has of a position."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from rustmq_sdk.values import Checkpoint

SENT = 20
"""Checkpoints without an answer that are remembered; with the pauses between them that is more than a minute."""


@dataclass(slots=True)
class OnBroker:
    """What the broker has of a partition's position, as far as its owner knows.

    One for all ledgers of an owner: a seek begins a new ledger, and the broker may answer a commit of the old one after
    that.
    """

    checkpoint: Checkpoint
    """Written last; where we began, until something was."""
    stored: bool = False
    """The broker has it: it is not only where we began."""
    sent: deque[Checkpoint] = field(default_factory=lambda: deque(maxlen=SENT))
    """Sent since, without an answer: the broker may have any of these."""

    def may_be(self, committed: Checkpoint | None) -> bool:
        """Whether a position can be our own doing, and nobody else's."""
        # Nothing was ever committed: then there is nothing anybody could have moved.
        if committed is None:
            return not self.stored

        # A commit whose answer was lost may have been made all the same.
        return committed == self.checkpoint or committed in self.sent
