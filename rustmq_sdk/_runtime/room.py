"""How much may wait: a bound that callers wait for, first come, first served."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import anyio


class Room:
    """So many places. Taking several at once is one wait, so that no caller holds half of what it needs."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._waiting: deque[tuple[int, Callable[[], None], anyio.Event]] = deque()

    def take_nowait(self, count: int) -> bool:
        """Takes the places if they are free and nobody waits."""
        if self._waiting or count > self._free:
            return False

        self._free -= count
        return True

    async def take(self, count: int, taken: Callable[[], None]) -> None:
        """Takes the places as soon as they are free, and calls ``taken`` in that moment.

        In that moment, not when the waiting task runs again: tasks that are woken together run in any order, and
        theirs is the order in which they came. Cancelled before, nothing is taken and ``taken`` is not called.

        Args:
            count: at most the size.
            taken: must not raise.
        """
        if self.take_nowait(count):
            taken()
            return

        place = (count, taken, anyio.Event())
        self._waiting.append(place)
        try:
            await place[2].wait()
        except BaseException:
            if not place[2].is_set():
                # Who stood behind us may fit where we did not.
                self._waiting.remove(place)
                self._admit()

            raise

    def give(self, count: int) -> None:
        """Gives places back."""
        self._free += count
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._free:
            count, taken, event = self._waiting.popleft()
            self._free -= count
            event.set()
            taken()
