"""What a forked child must do before anything else: it has its parent's descriptors and none of its threads.

It also has a copy of what SQLite in the parent knows of its files, the locks among it. A log that was open at the fork
cannot be opened in the child any more: SQLite would believe that the locks are its own, take none, and the parent,
closing, would take itself for the last one and throw away what the child has written and confirmed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import apsw

_inherited: set[Path] = set()
"""Files that were open in the parent when this process was forked."""


def was_open_in_parent(path: Path) -> bool:
    """Whether SQLite cannot be trusted with this file in this process."""
    return bool(_inherited) and path.resolve() in _inherited


def after_fork(forget: Callable[[], None]) -> None:
    """Has ``forget`` called in every child that this process forks without exec; it must not block and not raise."""
    if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
        os.register_at_fork(after_in_child=forget)


def _inherit() -> None:
    for connection in apsw.connections():
        with suppress(apsw.Error):  # it was closed in the very moment
            _inherited.add(Path(connection.filename).resolve())


after_fork(_inherit)
