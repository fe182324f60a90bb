"""Bells: many tasks ring, one task waits."""

from __future__ import annotations

import anyio
import anyio.lowlevel

from rustmq_sdk.errors import ConsumerStateError


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


class FetchBell(Bell):
    """What a fetch of a subscription waits for: a ring has it look again, :meth:`end` has it return to its caller.

    Rearm it, look whether there is something to bring, and only then wait: so nothing is slept through.

    Attributes:
        ended: whether the fetch should return. It sets that back when it does.
    """

    __slots__ = ("ended",)

    def __init__(self) -> None:
        super().__init__()
        self.ended = False

    def rearm(self) -> None:
        """Forgets what was rung for until now, since it is about to be seen.

        Raises:
            ConsumerStateError: another fetch is waiting.
        """
        if self._event is not None:
            raise ConsumerStateError("two fetches at once on one subscription. Wait for the first, or wake() it")

        self._rung = False

    def end(self) -> None:
        """Has the fetch that waits, or else the next one, return."""
        self.ended = True
        self.ring()
