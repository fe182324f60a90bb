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

    Attributes:
        hits, misses: how often :meth:`take` found a body, and how often the log has to be read instead.
        evictions: bodies forgotten for room.
        expirations: bodies forgotten for age.
        refusals: bodies not kept, because the cache is off or the body alone is over the budget.
    """

    def __init__(self, max_messages: int, max_bytes: int, ttl: float, clock: Callable[[], float]) -> None:
        self._max_messages = max_messages if max_bytes else 0
        self._bodies = _Bodies(max_bytes, ttl, timer=clock, getsizeof=_size)
        self.hits = 0
        self.misses = 0
        self.refusals = 0

    def __len__(self) -> int:
        """Bodies kept; those that are too old do not count, and are freed by asking."""
        return len(self._bodies)

    @property
    def bytes(self) -> int:
        """Bytes of the bodies kept."""
        return int(self._bodies.currsize)

    @property
    def evictions(self) -> int:
        return self._bodies.evictions

    @property
    def expirations(self) -> int:
        return self._bodies.expirations

    def put(self, key: Key, body: Body) -> bool:
        """Keeps the body, in place of an earlier one of the same key; returns whether it was kept."""
        bodies = self._bodies
        if not self._max_messages or _size(body) > bodies.maxsize:
            self.refusals += 1
            return False

        with bodies.timer:
            if key not in bodies:
                while len(bodies) >= self._max_messages:
                    bodies.popitem()

            bodies[key] = body

        return True

    def take(self, key: Key) -> Body | None:
        """Gives the body away; None if it has to be read again from the log."""
        body = self._bodies.pop(key, None)
        if body is None:
            self.misses += 1
        else:
            self.hits += 1

        return body

    def expire(self) -> None:
        """Frees what is too old. Without it an idle cache keeps dead bodies: lookups alone never free anything."""
        self._bodies.expire()

    def forget(self, which: Hashable | Callable[[Key], bool]) -> None:
        """Frees the bodies of one owner, or of all keys that the predicate is true for."""
        bodies = self._bodies
        with bodies.timer:
            bodies.expire()
            for key in list(bodies):
                if which(key) if callable(which) else key[0] is which:
                    del bodies[key]


class _Bodies(TTLCache[Key, Body]):
    """Counts what leaves unasked."""

    evictions = 0
    expirations = 0

    def popitem(self) -> tuple[Key, Body]:
        item = super().popitem()
        self.evictions += 1
        return item

    def expire(self, time: float | None = None) -> list[tuple[Key, Body]]:
        expired = list(super().expire(time))
        self.expirations += len(expired)
        return expired


def _size(body: Body) -> int:
    return size_of(*body[:3])
