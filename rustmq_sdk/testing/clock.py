"""Virtual time on both loops: nobody sleeps, the clock jumps to the next timer when all tasks wait.

Nothing is injected: programs go on reading their loop's clock through ``anyio.current_time()``, ``sleep`` and
``move_on_after``.

The limit: the clock cannot see work outside the loop. With a thread, a socket or a process in flight it may run ahead
and fire a timeout that in real time would never have come. Tests of such things use real time.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

Backend: TypeAlias = Literal["asyncio", "trio"]

BACKENDS: tuple[Backend, ...] = ("asyncio", "trio")


class JumpingSelector(selectors.DefaultSelector):
    """A selector that, where another would wait for a timer, moves :attr:`now` there and returns."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Returns the files that are ready; if there are none, the clock jumps ahead instead of waiting."""
        if timeout is None:
            return super().select(None)

        ready = super().select(0)
        if not ready:
            self.now += max(timeout, 0.0)

        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An asyncio loop in virtual time; starts at 0."""

    def __init__(self) -> None:
        self._jumping = JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now

    def jump(self, seconds: float) -> None:
        """Lets time go by while nobody runs, as ``trio.testing.MockClock.jump()``."""
        self._jumping.now += seconds


def virtual_time(backend: Backend) -> Mapping[str, Any]:
    """Returns the ``backend_options`` with which anyio runs this backend in virtual time."""
    if backend == "asyncio":
        return {"loop_factory": VirtualTimeLoop}

    from trio.testing import MockClock

    return {"clock": MockClock(autojump_threshold=0)}


def is_virtual(options: Mapping[str, Any]) -> bool:
    """Returns whether these ``backend_options`` were made by :func:`virtual_time`."""
    return "clock" in options or options.get("loop_factory") is VirtualTimeLoop
