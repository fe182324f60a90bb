"""How long something took while this machine was awake: that it stood still says nothing about who was measured."""

from __future__ import annotations

import threading
import time
from types import TracebackType

TICK = 0.01
MOST = 0.1
"""Seconds between two ticks that count. With both processors busy a tick is late by less; a process that was stopped,
or a virtual machine that was, ticks again when it goes on."""


class Awake:
    """A clock, while it is entered: stands still when the process does. It never runs ahead of the time.

    Attributes:
        seconds: since it was entered.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._tick, name="awake", daemon=True)

    def _tick(self) -> None:
        last = time.monotonic()
        while not self._over.wait(TICK):
            now = time.monotonic()
            self.seconds += min(now - last, MOST)
            last = now

    def __enter__(self) -> Awake:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
