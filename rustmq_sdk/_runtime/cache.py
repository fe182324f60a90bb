"""Bodies of messages that may be needed again: kept for retries, within a budget of messages, bytes and time.

The cache only ever saves a read. A body that is not there (evicted, expired, too large, never kept) is read again from
the log by partition and offset, so nothing here may raise for want of room.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import NamedTuple, TypeAlias

from cachetools import TTLCache

from rustmq_sdk.values import Headers, size_of


class Body(NamedTuple):
    """What a message is made of, apart from where it came from. ``timestamp`` is in milliseconds since the epoch."""

    payload: bytes | None
    key: bytes | None
    headers: Headers
    timestamp: int


Key: TypeAlias = tuple[Hashable, int]
"""Whose it is (the ledger, which outlives an eager rebalance) and its offset."""


class MessageCache:
    """Keeps bodies until they are taken, and forgets the longest kept ones first when a budget is used up.

    Args:
        max_messages: bodies kept at most; 0 keeps none.
        max_bytes: their bytes at most; 0 keeps none, and a single larger body is not kept.
        ttl: seconds after which a body is forgotten. Reading does not come into it: a read takes the body out.
        clock: the loop's clock.
    """

    def __init__(self, max_messages: int, max_bytes: int, ttl: float, clock: Callable[[], float]) -> None:
        self._max_messages = max_messages if max_bytes else 0
        self._bodies: TTLCache[Key, Body] = TTLCache(max_bytes, ttl, timer=clock, getsizeof=_size)

    def put(self, key: Key, body: Body) -> None:
        """Keeps the body, in place of an earlier one of the same key."""
        bodies = self._bodies
        if not self._max_messages or _size(body) > bodies.maxsize:
            return

        with bodies.timer:
            if key not in bodies:
                while len(bodies) >= self._max_messages:
                    bodies.popitem()

            bodies[key] = body

    def take(self, key: Key) -> Body | None:
        """Gives the body away; None if it has to be read again from the log."""
        return self._bodies.pop(key, None)

    def expire(self) -> None:
        """Frees what is too old. Without it an idle cache keeps dead bodies: lookups alone never free anything."""
        self._bodies.expire()

    def forget(self, owner: Hashable) -> None:
        """Frees the bodies of one owner."""
        bodies = self._bodies
        with bodies.timer:
            bodies.expire()
            for key in list(bodies):
                if key[0] is owner:
                    del bodies[key]


def _size(body: Body) -> int:
    return size_of(*body[:3])
