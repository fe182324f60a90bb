"""Notes when this machine stood still, as a virtual machine does whose host has others to run.

Nobody could commit then, nor hear that a partition was somebody else's. A thread that wanted to go on long ago tells.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.kills.journal import Journal

TICK = 0.02
LATE = 0.2
"""Seconds. With more to do than it has processors for, a machine lets a thread wait for tenths of that."""


@contextmanager
def noting(journal: Journal) -> Iterator[None]:
    """Lines ``standstill BEGAN`` (nanoseconds, as the lines' own times) at the end of each, while this is entered."""
    over = threading.Event()

    def watch() -> None:
        last = time.monotonic_ns()
        while not over.wait(TICK):
            now = time.monotonic_ns()
            if now - last > (TICK + LATE) * 1e9:
                journal.note("standstill", last)

            last = now

    thread = threading.Thread(target=watch, name="standstills", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
