"""One process of the tour, as its parent sees it."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from demo_parts.journal import Follower, Line

FINISHED = 0


class UnexpectedEnd(Exception):
    """A process has ended that should not have."""


class Child:
    """One process, and what its journal says about it.

    Args:
        role: what it does.
        name: of a consumer.
        command: starts it.
        journal: where it notes what happens.
        ends: with which status, if it is to end by itself, else None.
    """

    def __init__(self, role: str, name: str, command: Sequence[str], journal: Path, *, ends: int | None) -> None:
        self.title = f"{role} {name}".strip()
        self.name = name
        self.in_hand: set[str] = set()
        """Events that a handler has taken, and neither finished nor put down."""
        self.handled = 0
        self._ends = ends
        self._journal = Follower(journal)
        # In a session of its own, Ctrl-C reaches the parent alone, and there is one way to end: the end of stdin.
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True, bufsize=0)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def status(self) -> int | None:
        """None while it runs, minus the number of the signal that killed it."""
        return self._process.poll()

    def news(self) -> list[Line]:
        """What it has noted since the last call."""
        lines = self._journal.read()
        for line in lines:
            match line.what:
                case "taken":
                    self.in_hand.add(line.id)
                case "put_down":
                    self.in_hand.discard(line.id)
                case "handled":
                    self.in_hand.discard(line.id)
                    self.handled += 1

        return lines

    def check(self) -> None:
        """Raises ``UnexpectedEnd`` if it is not there any more, and nobody has asked for that."""
        if self.status not in {None, self._ends}:
            raise UnexpectedEnd(f"The {self.title} has ended with exit status {self.status}.")

    def ask_to_end(self) -> None:
        """Lets it finish what it has in hand, commit and leave."""
        self._ends = FINISHED
        assert self._process.stdin is not None
        self._process.stdin.close()

    def kill(self) -> None:
        """``kill -9``, and waits until it is dead: its journal ends here."""
        self._process.kill()
        self._ends = self._process.wait()

    def wait(self, seconds: float) -> None:
        """Raises ``subprocess.TimeoutExpired`` if it has not ended then."""
        self._process.wait(seconds)

    def close(self) -> None:
        """Leaves neither a process behind nor an open file."""
        self.kill()
        self.ask_to_end()
        self._journal.close()
