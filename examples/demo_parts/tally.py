"""What happened, counted from what was seen: every published event has to be found again at the other end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

import rustmq_sdk


@dataclass
class Tally:
    """Fills :class:`rustmq_sdk.Observer` as far as it cares, so consumers tell it what no handler sees."""

    published: set[str] = field(default_factory=set)
    delivered: Counter[str] = field(default_factory=Counter)
    """How often each event reached a handler."""
    handled: Counter[str] = field(default_factory=Counter)
    """How often a handler came to its end with it: more than once is a duplicate."""
    dead: dict[str, str] = field(default_factory=dict)
    """Event to reason, of what the dead-letter topic has durably."""
    retried: int = 0
    alarms: int = 0
    busy: Counter[str] = field(default_factory=Counter)
    """Events in the hands of each consumer's handlers, this moment."""

    @property
    def lost(self) -> set[str]:
        """Published, and neither handled nor a dead letter. Empty, or the demo has failed."""
        return self.published - self.handled.keys() - self.dead.keys()

    @property
    def redelivered(self) -> int:
        return self.delivered.total() - len(self.delivered)

    @property
    def duplicates(self) -> int:
        return self.handled.total() - len(self.handled)

    @property
    def settled(self) -> int:
        return len(self.handled) + len(self.dead)

    def on_retried(self, partition: rustmq_sdk.TopicPartition, offset: int | None, attempt: int, delay: float) -> None:
        self.retried += 1

    def on_dead_lettered(self, letters: Sequence[rustmq_sdk.DeadLetter]) -> None:
        for letter in letters:
            self.dead[msgspec.json.decode(letter.payload or b"")["id"]] = letter.reason
