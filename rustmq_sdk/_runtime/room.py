"""How much may wait: a bound that callers wait for, first come, first served."""

from __future__ import annotations

from collections import deque

import anyio


class Room:
    """So many places. Taking several at once is one wait, so that no caller holds half of what it needs."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._waiting: deque[tuple[int, anyio.Event]] = deque()

    def take_nowait(self, count: int) -> bool:
        """Takes the places if they are free and nobody waits."""
        if self._waiting or count > self._free:
            return False

        self._free -= count
        return True

    async def take(self, count: int) -> None:
        """Takes the places as soon as they are free. ``count`` is at most the size."""
        if self.take_nowait(count):
            return

        place = (count, anyio.Event())
        self._waiting.append(place)
        try:
            await place[1].wait()
        except BaseException:
            # The places may have been given to us between the cancellation and now; somebody else can use them. And
            # whoever stood behind us may fit where we did not.
            if place[1].is_set():
                self._free += count
            else:
                self._waiting.remove(place)

            self._admit()
            raise

    def give(self, count: int) -> None:
        """Gives places back."""
        self._free += count
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._free:
            count, event = self._waiting.popleft()
            self._free -= count
            event.set()
