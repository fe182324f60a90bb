"""A bounded channel between tasks of one loop: a deque and an event, never a hand-off to a waiter.

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


class Channel(Generic[T]):
    """Many tasks put, one task waits and drains.

    Promises:
        1. ``put`` and ``kick`` never suspend, so telling somebody is possible where waiting is not.
        2. No wake is lost: ``wait`` returns soon after every ``put`` and every ``kick`` that it has not reported yet.
        3. A cancelled ``wait`` has taken nothing: the next one reports the same items and the same kick.

    Everything is called from the loop's thread.

    Args:
        bound: the largest number of items that can be outstanding when nobody makes a mistake.
    """

    __slots__ = ("_event", "_items", "_kicked", "bound")

    def __init__(self, bound: int) -> None:
        if bound < 1:
            raise ValueError(f"expected a bound of at least 1, got {bound}")

        self.bound = bound
        self._items: deque[T] = deque()
        self._kicked = False
        self._event: anyio.Event | None = None

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

    def kick(self) -> None:
        """Makes the consumer's ``wait`` return without an item: the present one, or else the next one. Kicks merge."""
        self._kicked = True
        self._wake()

    def drain(self) -> list[T]:
        """Takes all items, oldest first; empty if there are none. Does not suspend."""
        items = list(self._items)
        self._items.clear()
        return items

    async def wait(self, timeout: float | None = None) -> bool:
        """Waits until there are items or a kick, at most ``timeout`` seconds (None: without limit).

        Returns whether there are; False is the timeout. Always a checkpoint. Takes no items: ``drain`` does. A kick is
        reported once.

        Raises:
            RuntimeError: another task is waiting already.
        """
        if self._event is not None:
            raise RuntimeError("a channel has one consumer, and it is waiting already: give each task its own channel")

        # Why no wake can get lost between looking and waiting. A producer changes the deque or the flag first and sets
        # the published event second; the consumer publishes its event first and looks second. Whichever way the two
        # interleave (a put in another task can only come at an await, a kick from a signal handler anywhere), either
        # the look comes after the change and sees it, or the change comes after the look, hence after the event was
        # published, and sets it. An event is made for each wait and never cleared, so an old wake cannot be erased
        # either. The flag is cleared below in the step that returns True: a wait that is cancelled, even when its event
        # is already set, leaves flag and items for the next one.
        event = self._event = anyio.Event()
        try:
            if self._items or self._kicked:
                await anyio.lowlevel.checkpoint()
            elif timeout is None:
                await event.wait()
            else:
                with anyio.move_on_after(timeout):
                    await event.wait()
        finally:
            self._event = None

        # Looked at again rather than taken from the event: what came at the same moment as the timeout is reported.
        ready = self._kicked or bool(self._items)
        self._kicked = False
        return ready

    def _wake(self) -> None:
        if self._event is not None:
            self._event.set()
