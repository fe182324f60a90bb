"""Between tasks of one loop: a bell, and a bounded channel that is a deque and a bell, never a hand-off to a waiter.

A hand-off is how messages get lost: a queue that gives an item to a waiting task loses it when that task is cancelled
natively before it runs again. Here an item stays in the deque until the consumer takes it, in a call that cannot be
interrupted.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

import anyio
import anyio.lowlevel

T = TypeVar("T")


class ChannelFull(AssertionError):
    """More was put than can be outstanding: the bound was computed wrongly, which is a bug and not a load problem."""


class Bell:
    """Many tasks ring, one task waits. Rings merge.

    Promises:
        1. ``ring`` never suspends, so telling somebody is possible where waiting is not.
        2. No wake is lost: ``wait`` returns soon after every ``ring`` that it has not reported yet.
        3. A cancelled ``wait`` has taken nothing: the next one reports the same ring.

    Everything is called from the loop's thread.
    """

    __slots__ = ("_event", "_rung")

    def __init__(self) -> None:
        self._rung = False
        self._event: anyio.Event | None = None

    def ring(self) -> None:
        """Makes ``wait`` return: the present one, or else the next one."""
        self._rung = True
        self._wake()

    async def wait(self, timeout: float | None = None) -> bool:
        """Waits until somebody rings, at most ``timeout`` seconds (None: without limit).

        Returns whether somebody did; False is the timeout. Always a checkpoint. A ring is reported once.

        Raises:
            RuntimeError: another task is waiting already.
        """
        if self._event is not None:
            raise RuntimeError("one task waits here, and it is waiting already: give each task its own")

        # Why no wake can get lost between looking and waiting. A producer changes the items or the flag first and sets
        # the published event second; the consumer publishes its event first and looks second. Whichever way the two
        # interleave (a put in another task can only come at an await, a ring from a signal handler anywhere), either
        # the look comes after the change and sees it, or the change comes after the look, hence after the event was
        # published, and sets it. An event is made for each wait and never cleared, so an old wake cannot be erased
        # either. The flag is cleared below in the step that returns True: a wait that is cancelled, even when its event
        # is already set, leaves flag and items for the next one.
        event = self._event = anyio.Event()
        try:
            if self._is_due():
                await anyio.lowlevel.checkpoint()
            elif timeout is None:
                await event.wait()
            else:
                with anyio.move_on_after(timeout):
                    await event.wait()
        finally:
            self._event = None

        # Looked at again rather than taken from the event: what came at the same moment as the timeout is reported.
        due = self._is_due()
        self._rung = False
        return due

    def _is_due(self) -> bool:
        return self._rung

    def _wake(self) -> None:
        if self._event is not None:
            self._event.set()


class Channel(Bell, Generic[T]):
    """A bell with items: many tasks put, one task waits and drains. Its promises hold for ``put`` as for ``ring``.

    ``wait`` returns as long as there are items, and takes none: ``drain`` does.

    Args:
        bound: the largest number of items that can be outstanding when nobody makes a mistake.
    """

    __slots__ = ("_items", "bound")

    def __init__(self, bound: int) -> None:
        if bound < 1:
            raise ValueError(f"expected a bound of at least 1, got {bound}")

        super().__init__()
        self.bound = bound
        self._items: deque[T] = deque()

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T) -> None:
        """Adds an item and wakes the consumer.

        Raises:
            ChannelFull: the channel holds ``bound`` items already; the item was not added.
        """
        if len(self._items) >= self.bound:
            raise ChannelFull(f"expected at most {self.bound} items outstanding: the bound was computed wrongly")

        self._items.append(item)
        self._wake()

    def drain(self) -> list[T]:
        """Takes all items, oldest first; empty if there are none. Does not suspend."""
        items = list(self._items)
        self._items.clear()
        return items

    def _is_due(self) -> bool:
        return bool(self._items) or self._rung
