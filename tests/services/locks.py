"""Locks between processes, on files. The system lets go of them when their holder ends, however it ends."""

from __future__ import annotations

import fcntl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """One at a time. Says so, after a moment, if another one is at it."""
    with _opened(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.stderr.write(f"waiting for another scripts/services that is busy with {path.stem}\n")
            fcntl.flock(file, fcntl.LOCK_EX)

        yield


@contextmanager
def together(path: Path) -> Iterator[None]:
    """Any number at a time; while one is here, ``is_used`` is true."""
    with _opened(path) as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


def is_used(path: Path) -> bool:
    """Whether anybody is in ``together``."""
    with _opened(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True

    return False


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        yield file.fileno()
