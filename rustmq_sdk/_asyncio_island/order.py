"""What must not be seen the other way round by the user's loop than it happened on the island."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import anyio

from rustmq_sdk._threads import Mailbox
from rustmq_sdk.slots import Fetched


class Order:
    """Holds listener calls back until they may be made. Made on the user's loop.

    1. Not before ``subscribe()`` was entered: the island may be faster than the task that enters.
    2. No fetch result crosses one: a result that was there when the call set out reaches the runtime before it. Both
       have come by one mailbox, in their order; but the fetcher and the task that makes the calls are woken in the same
       turn of the loop, and trio runs what was woken together in any order.
    """

    def __init__(self) -> None:
        self._mailbox = Mailbox.current()
        self._entered = anyio.Event()
        self._flight: Flight | None = None

    def entered(self) -> None:
        """The next step of this task is the first of whoever has subscribed."""
        self._entered.set()

    @contextmanager
    def fetching(self) -> Iterator[Flight]:
        """Around one fetch."""
        flight = self._flight = Flight(self._mailbox)
        try:
            yield flight
        finally:
            # Whoever waits for this runs after the present step, in which the runtime takes in what was fetched.
            flight.over.set()

    async def reached(self) -> None:
        """Returns when a listener call may be made that has come from the island now."""
        await self._entered.wait()
        if self._flight is not None and self._flight.landed:
            await self._flight.over.wait()


class Flight:
    """One fetch, from the call until its result is handed over.

    Attributes:
        pieces: what it has brought; there also if the wait for it was cancelled meanwhile.
        landed: the user's loop has it, and nobody has taken it yet.
        over: it was taken, or nobody waits for it any more.
    """

    def __init__(self, mailbox: Mailbox) -> None:
        self.pieces: Sequence[Fetched] = ()
        self.landed = False
        self.over = anyio.Event()
        self._mailbox = mailbox

    def land(self, pieces: Sequence[Fetched]) -> None:
        """The result is there. On the island."""
        self.pieces = pieces
        self._mailbox.post(self._land)

    def _land(self) -> None:
        self.landed = True
