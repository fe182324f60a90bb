"""Notes when all of a run stood still: its machine, as a virtual one does whose host has others to run; or its server.

Nobody could commit then, nor hear that a partition was somebody else's. A thread tells that wanted to go on long ago,
or had asked the server and got no answer for so long.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from urllib.parse import urlsplit

from tests.kills.journal import Journal
from tests.services import kafka_wire
from tests.services.ports import HOST

TICK = 0.05
LATE = 0.2
"""Seconds. With more to do than it has processors for, a machine lets a thread wait for tenths of that."""


@contextmanager
def noting(journal: Journal, url: str) -> Iterator[None]:
    """Lines ``standstill BEGAN`` (nanoseconds, as the lines' own times) at the end of each, while this is entered."""
    ask, over = _question(url), threading.Event()

    def watch() -> None:
        last = time.monotonic_ns()
        while not over.wait(TICK):
            with suppress(OSError, EOFError):  # silent still
                ask()
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


def _question(url: str) -> Callable[[], object]:
    """To the Kafka of this URL, if it is one of this machine; to nobody otherwise."""
    where = urlsplit(url)
    host, _, port = where.netloc.partition(",")[0].rpartition(":")
    return partial(kafka_wire.brokers, int(port)) if (where.scheme, host) == ("kafka", HOST) else lambda: None
