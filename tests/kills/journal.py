"""What a process did, in lines that survive its death.

Each line goes to the kernel in one write before the process does anything else: what the journal has not, did not
happen. A kill may tear the line that is being written, where a page of the file ends; so may a look at a file that is
written meanwhile. A line without its end is not there yet. Times are those of the monotonic clock, which all processes
of a machine share.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Event(NamedTuple):
    """One line of a journal."""

    at: int
    """Nanoseconds of the monotonic clock."""
    who: str
    """The process: a name and how often it was started before, ``w0.2``."""
    what: str
    details: tuple[str, ...]


class Journal:
    """Appends lines to a file."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def note(self, what: str, *details: object) -> None:
        """Writes a line; when this returns no kill takes it back."""
        os.write(self._file, " ".join(map(str, (time.monotonic_ns(), what, *details, "\n"))).encode())


def read(folder: Path) -> list[Event]:
    """All journals of a folder, merged by time."""
    return sorted(event for path in folder.glob("*.journal") for event in _events(path))


def _events(path: Path) -> Iterator[Event]:
    for line in path.read_text().split("\n")[:-1]:
        at, what, *details = line.split()
        yield Event(int(at), path.stem, what, tuple(details))
