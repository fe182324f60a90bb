"""What one task waits for again and again."""

from __future__ import annotations

import anyio

from rustmq_sdk.errors import ConsumerStateError


class Bell:
    """Wakes one waiter: rearm it, look whether there is something to do, and only then wait. Belongs to one loop.

    Attributes:
        rung: whether the waiter should return to its caller, and not only look again. The waiter sets it back.
    """

    def __init__(self) -> None:
        self.rung = False
        self._nudged = False
        self._waiting: anyio.Event | None = None

    def rearm(self) -> None:
        """What there was to see until now is about to be looked at. Raises as :meth:`wait` does."""
        self._refuse_a_second()
        self._nudged = False

    def nudge(self) -> None:
        """There may be something to see: ends the waiting, and the next one if the bell is not rearmed before."""
        self._nudged = True
        if self._waiting is not None:
            self._waiting.set()

    def ring(self) -> None:
        """Ends the waiting, or the next one, and has the waiter return to its caller."""
        self.rung = True
        self.nudge()

    async def wait(self, seconds: float) -> bool:
        """Until something happens, or has happened since the last :meth:`rearm`; False if the time is over first.

        Raises:
            ConsumerStateError: another task waits already.
        """
        self._refuse_a_second()
        event = self._waiting = anyio.Event()
        if self._nudged:
            event.set()

        try:
            with anyio.move_on_after(seconds):
                await event.wait()
                return True

            return False
        finally:
            self._waiting = None

    def _refuse_a_second(self) -> None:
        if self._waiting is not None:
            raise ConsumerStateError("two fetches at once on one subscription. Wait for the first, or wake() it")
