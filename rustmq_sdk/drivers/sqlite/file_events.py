"""What the operating system tells about files, whichever way it does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Protocol


class FileEvent(NamedTuple):
    """One thing that happened to a file.

    Attributes:
        path: of the file; None where events were dropped, and anything may have happened.
        kind: ``written``; ``ended``: a process that had it open for writing has closed it; ``gone``: removed, renamed,
            or something else that calls for another look at its name.
    """

    path: Path | None
    kind: Literal["written", "ended", "gone"]


class FileEvents(Protocol):
    """One thread waits; :meth:`interrupt` may come from any. ``OSError`` where the system has no room for more."""

    def on_write(self, path: Path, fd: int) -> None:
        """Tells from now on when the file, open as ``fd``, is written or gone."""
        ...

    def on_end(self, path: Path) -> None:
        """Tells from now on, where the system can, when a process that had it open for writing closes it."""
        ...

    def wait(self, seconds: float) -> Sequence[FileEvent]:
        """What happened since the last call; waits at most this long for the first."""
        ...

    def interrupt(self) -> None:
        """Ends the waiting, or the next one."""
        ...

    def close(self) -> None:
        """Gives everything back."""
        ...
