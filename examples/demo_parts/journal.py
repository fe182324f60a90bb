"""What each process notes down, one line an event, so that the tour can say at the end what became of every event.

A journal belongs to one process. Each line is handed to the operating system before the process goes on, so it survives
``kill -9``: "handled" is on record before the message is acked, and "published" only after the log has it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

What = Literal["published", "taken", "handled", "put_down", "retried", "dead", "assigned"]


class Line(msgspec.Struct, omit_defaults=True):
    """One thing that happened in one process."""

    what: What
    id: str = ""
    """Of the event."""
    text: str = ""
    """The alarm that a handled event has raised."""
    partitions: tuple[int, ...] = ()
    """Assigned ones."""


class Journal:
    """Writes."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab")

    def note(self, what: What, event: str = "", *, text: str = "", partitions: tuple[int, ...] = ()) -> None:
        self._file.write(msgspec.json.encode(Line(what, event, text, partitions)) + b"\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class Follower:
    """Reads what another process writes, as far as it is written."""

    def __init__(self, path: Path) -> None:
        path.touch()
        self._file = path.open("rb")
        self._rest = b""

    def read(self) -> list[Line]:
        """The lines since the last call. Half a line waits for its end, which a killed process may never write."""
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        return [msgspec.json.decode(line, type=Line) for line in lines]

    def close(self) -> None:
        self._file.close()
