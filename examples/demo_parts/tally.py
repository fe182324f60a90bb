"""The account: every published event has to be found again at the other end, by what the processes noted down."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, field

from demo_parts.journal import Line


@dataclass
class Tally:
    """Counts the lines of all journals."""

    published: set[str] = field(default_factory=set)
    taken: Counter[str] = field(default_factory=Counter)
    """How often each event reached a handler."""
    handled: Counter[str] = field(default_factory=Counter)
    """How often a handler came to its end with it: more than once is a duplicate."""
    dead: set[str] = field(default_factory=set)
    """What the dead-letter topic has durably."""
    retried: int = 0
    alarms: set[str] = field(default_factory=set)

    def take(self, line: Line) -> None:
        match line.what:
            case "published":
                self.published.add(line.id)
            case "taken":
                self.taken[line.id] += 1
            case "handled":
                self.handled[line.id] += 1
                if line.text:
                    self.alarms.add(line.id)
            case "retried":
                self.retried += 1
            case "dead":
                self.dead.add(line.id)

    @property
    def lost(self) -> set[str]:
        """Published, and neither handled nor a dead letter. Empty, or the demo has failed."""
        return self.published - self.handled.keys() - self.dead

    @property
    def redelivered(self) -> int:
        return self.taken.total() - len(self.taken)

    @property
    def duplicates(self) -> int:
        return self.handled.total() - len(self.handled)

    @property
    def settled(self) -> int:
        return len(self.handled.keys() | self.dead)


def table(tally: Tally, *, lag: int, seconds: float) -> str:
    """The account at the end."""
    rows = (
        ("published", len(tally.published), "durably in the log"),
        ("handled", len(tally.handled), f"{len(tally.alarms)} of them raised an alarm"),
        ("dead-lettered", len(tally.dead), "explosions and quarry blasts: not earthquakes"),
        ("retried", tally.retried, "the look-up failed; tried again after a backoff"),
        ("redelivered", tally.redelivered, "the retries, and what the killed one had not committed"),
        ("duplicates", tally.duplicates, "handled twice: kill -9 forgets what was not committed yet"),
        ("lost", len(tally.lost), "published, and neither handled nor dead-lettered"),
        ("lag", lag, "as a new member of the group finds it"),
    )
    lines = [f"{name:>14}  {count:6,}  {meaning}" for name, count, meaning in rows]
    return "\n".join([*lines, f"{'seconds':>14}  {seconds:6.1f}"])


def verdict(tally: Tally, lag: int) -> int:
    """The exit status, and why."""
    if tally.lost:
        some = ", ".join(sorted(tally.lost)[:5])
        print(f"\n{len(tally.lost)} events were lost, which must never happen. Some of them: {some}", file=sys.stderr)

    if lag:
        print(f"\n{lag} messages are not committed although the tour is over, which must not be.", file=sys.stderr)

    return 1 if tally.lost or lag else 0
