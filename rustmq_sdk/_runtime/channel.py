"""Between tasks of one loop: a bounded channel that is a deque and a bell, never a hand-off to a waiter.

A hand-off is how messages get lost: a queue that gives an item to a waiting task loses it when that task is cancelled
natively before it runs again. Here an item stays in the deque until the consumer takes it, in a call that cannot be
interrupted.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

from rustmq_sdk._bell import Bell

T = TypeVar("T")


class ChannelFull(AssertionError):
    """More was put than can be outstanding: the bound was computed wrongly, which is a bug and not a load problem."""


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
