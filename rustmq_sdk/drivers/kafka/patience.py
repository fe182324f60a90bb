"""How long one call keeps trying, and what it says when it gives up. On an asyncio loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from rustmq_sdk._backoff import pause_after
from rustmq_sdk.drivers.kafka.failures import NotSent, Unanswered, translate
from rustmq_sdk.errors import OutcomeUnknown, RustMQError, TransientDriverError

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
"""Seconds. A leader is elected within tens of milliseconds; Apache Kafka's clients wait 0.1 s, and at most 1 s."""
ELECTION = 0.35
"""Seconds of pauses after which an election takes too long for somebody in a hurry."""


class Patience:
    """One call to a slot, and its attempts.

    Args:
        slot: for errors.
        operation: for errors.
        is_closed: whether there is any use in trying on.
        hurried: somebody repeats it, and wants to know soon that nothing could be sent.

    Attributes:
        slot: as given.
        operation: as given.
        unanswered: something was sent and its answer lost, so no error may say that nothing is stored.
    """

    def __init__(self, slot: str, operation: str, is_closed: Callable[[], bool], *, hurried: bool = False) -> None:
        self.slot = slot
        self.operation = operation
        self._is_closed = is_closed
        self._hurried = hurried
        self._pauses = 0
        self._last: RustMQError | None = None
        self.unanswered = False

    @property
    def waited(self) -> float:
        """Seconds spent in pauses, about."""
        return sum(self._pause(number) for number in range(self._pauses))

    @asynccontextmanager
    async def at_most(self, seconds: float) -> AsyncIterator[None]:
        """The time for the call.

        Raises:
            OutcomeUnknown: it is over, and something may be stored.
            TransientDriverError: it is over, and nothing is; or the client is closed.
        """
        if self._is_closed():
            raise TransientDriverError("the client is closed", slot=self.slot, operation=self.operation)

        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError as error:
            said = "no answer" if self._last is None else str(self._last)
            late = TransientDriverError(
                f"not done within {seconds:g} s, and last: {said}", slot=self.slot, operation=self.operation
            )
            raise self.failure(late) from (self._last or error)

    async def pause(self, error: Exception) -> None:
        """Waits before the next attempt, longer each time.

        Raises:
            AuthenticationFailed, PermanentDriverError: no attempt will succeed.
            TransientDriverError: nothing was sent, and somebody wants to know that soon.
        """
        self._last = self.translated(error)
        healable = isinstance(self._last, TransientDriverError) or not isinstance(error, NotSent | Unanswered)
        if not healable or self._is_closed() or (self._hurried and self._is_enough(error)):
            raise self.failure(self._last) from error

        self._pauses += 1
        await asyncio.sleep(self._pause(self._pauses - 1))

    def translated(self, error: BaseException, where: str = "") -> RustMQError:
        """The error in our words; ``where`` is what it is about."""
        return translate(error, slot=self.slot, operation=self.operation, where=where)

    def failure(self, error: RustMQError) -> RustMQError:
        """The error to raise: ``error``, unless something may be stored."""
        if not self.unanswered or isinstance(error, OutcomeUnknown):
            return error

        unknown = OutcomeUnknown(f"it was sent and may be stored or not: {error}")
        unknown.__cause__ = error
        return unknown

    def _is_enough(self, error: Exception) -> bool:
        if self.unanswered or not isinstance(self._last, TransientDriverError):
            return False

        # A broker that answers that it does not lead the partition (yet, or any more) soon knows better.
        return isinstance(error, NotSent) or self.waited >= ELECTION

    def _pause(self, number: int) -> float:
        return pause_after(number, first=FIRST_PAUSE, most=LONGEST_PAUSE)
