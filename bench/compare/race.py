"""What is measured in the process of a contender, the same for all of them."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from time import monotonic_ns, perf_counter, process_time
from typing import Any

from bench.memory_phases import resident
from bench.tables import percentile

WARM_UP = 0.5
"""Seconds of a run of latencies that do not count."""
MS = 1e6


def new_group() -> str:
    """One without committed positions."""
    return f"bench-{secrets.token_hex(4)}"


class Race:
    """Takes the time over so many messages.

    Args:
        messages: how many are to be received.
        size: bytes of each.
        parts: the work is done in so many; after each, memory is looked at.
    """

    def __init__(self, messages: int, size: int, parts: int = 1) -> None:
        self.messages = messages
        self._size = size
        self._parts = parts
        self._samples: list[int] = []
        self._began = self._cpu = 0.0
        self._found: dict[str, Any] = {}

    def begin(self) -> None:
        """The first message has come; it is not counted."""
        self._began, self._cpu = perf_counter(), process_time()

    def goals(self) -> Iterator[int]:
        """Begins; how many messages shall have been received after each part."""
        self.begin()
        for part in range(1, self._parts + 1):
            yield self.messages * part // self._parts
            if self._parts > 1:
                self._samples.append(resident())

    def stop(self, received: int, size: int) -> None:
        """All is handled, and what there is to commit is committed."""
        seconds, cpu = perf_counter() - self._began, process_time() - self._cpu
        assert received >= self.messages, f"{received:,} messages came, of {self.messages:,}"
        assert size == received * self._size, f"{size:,} bytes came, not {received:,} times {self._size:,}"
        self._found = {"rate": received / seconds, "cpu": cpu / received * 1e6, "received": received}

    def found(self, commits: int) -> dict[str, Any]:
        """What to say, at the very end: some commit when they are closed."""
        return {**self._found, "commits": commits / self._found["received"] * 1e6, "samples": self._samples}


class Gauge:
    """Takes the time of each message from its sending, which stands in its first eight bytes.

    Args:
        rate: messages a second.
        seconds: for how long they are sent.
    """

    def __init__(self, rate: int, seconds: float) -> None:
        self._rate = rate
        self._left = int(rate * seconds)
        self._took: list[int] = []

    def take(self, payload: bytes | None) -> bool:
        """A message came; whether it was the last one."""
        self._took.append(monotonic_ns() - int.from_bytes((payload or b"")[:8], "big"))
        self._left -= 1
        return self._left <= 0

    def found(self) -> dict[str, float]:
        """Milliseconds."""
        steady = self._took[int(self._rate * WARM_UP) :]
        return {f"p{percent}": percentile(steady, percent) / MS for percent in (50, 99)} | {"max": max(steady) / MS}
