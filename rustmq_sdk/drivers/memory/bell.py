"""What a fetch waits for."""

from __future__ import annotations

from collections.abc import Collection

import anyio

from rustmq_sdk.drivers.memory.log import PartitionLog
from rustmq_sdk.errors import ConsumerStateError


class Bell:
    """One waiting fetch at most; ringing while nobody waits is remembered for the next."""

    def __init__(self) -> None:
        self.rung = False
        self._interrupted = False
        self._waiting: anyio.Event | None = None

    def ring(self) -> None:
        """Ends a wait, or the next one."""
        self.rung = True
        self.interrupt()

    def interrupt(self) -> None:
        """Ends a wait if there is one."""
        if self._waiting is not None:
            self._interrupted = True
            self._waiting.set()

    async def wait(self, logs: Collection[PartitionLog], seconds: float) -> bool:
        """Until something was appended to one of the logs or the time is over; True if it was ended before that."""
        if self._waiting is not None:
            raise ConsumerStateError("two fetches at once on one subscription. Wait for the first, or wake() it")

        event = self._waiting = anyio.Event()
        self._interrupted = False
        for log in logs:
            log.waiters[event] = None

        try:
            with anyio.move_on_after(seconds):
                await event.wait()
        finally:
            self._waiting = None
            for log in logs:
                log.waiters.pop(event, None)

        return self._interrupted
