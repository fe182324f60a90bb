"""A process of the tour ends when the tour does, however that ends: Ctrl-C, ``kill -9``, a power button."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

STDIN = 0
GRACE = 8.0
"""Seconds to finish what is in hand: more than a consumer's close_timeout, so this is only for what hangs."""


def when_the_tour_ends(call: Callable[[], object]) -> None:
    """Calls from a thread when our stdin ends: the tour holds the other end of it, and the system closes that for the
    dead. On a terminal that is Ctrl-D.
    """

    def wait() -> None:
        # Not sys.stdin: the interpreter would wait for its lock on the way out.
        while os.read(STDIN, 1024):
            pass

        call()
        time.sleep(GRACE)
        os._exit(1)

    threading.Thread(target=wait, name="lifeline", daemon=True).start()
