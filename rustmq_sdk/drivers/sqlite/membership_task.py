"""The task of a subscription that keeps its partitions in step with the group."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from contextlib import suppress

import anyio

from rustmq_sdk._bell import Bell, FetchBell
from rustmq_sdk.drivers.sqlite.broadcast import Changed
from rustmq_sdk.drivers.sqlite.membership import Membership
from rustmq_sdk.drivers.sqlite.solo import Solo
from rustmq_sdk.errors import DriverError, OutcomeUnknown, TransientDriverError

AGAIN_SECONDS = 2.0
"""At most until the next look after one that failed. A lease of minutes would have partitions wait for as long, once
the disk has room again."""


class MembershipTask:
    """Runs a :class:`Membership` or a :class:`Solo`.

    Args:
        ours: which of the two.
        keys: of broadcasts, after which to look at once.
        fetch_bell: ends the waiting of a fetch when it cannot go on; :meth:`check` has the reason then.
        look_bell: ends its own waiting.
    """

    def __init__(
        self, ours: Membership | Solo, keys: frozenset[Hashable], fetch_bell: FetchBell, look_bell: Bell
    ) -> None:
        self._ours = ours
        self._keys = keys
        self._fetch_bell = fetch_bell
        self._look_bell = look_bell
        self._failure: Exception | None = None
        self._trouble: TransientDriverError | None = None
        self._note_at = -math.inf

    @property
    def member(self) -> bytes:
        """Our id in the group; empty without one."""
        return self._ours.member

    @property
    def missing_topics(self) -> Mapping[str, str]:
        """What did not exist at the last look, and what to say of it."""
        return self._ours.missing_topics

    async def run(self) -> None:
        """Until it is cancelled, or fails: then the next fetch raises the reason."""
        try:
            with self._ours.beating():
                await self._keep_up()
        except Exception as error:
            self._failure = error
            self._fetch_bell.end()

    def nudge(self) -> None:
        """Has it look at the group now."""
        self._look_bell.ring()

    def heard(self, keys: Changed) -> None:
        """Something was written; None: anything."""
        if keys is None or not self._keys.isdisjoint(keys):
            self.nudge()

    def check(self) -> None:
        """Raises what made it stop, or, once, what keeps it from keeping up: the file is full, or locked."""
        if self._failure is not None:
            raise self._failure

        trouble, self._trouble = self._trouble, None
        if trouble is not None:
            raise trouble

    async def confirm(self) -> None:
        """After a silence of ours: nothing is delivered that became somebody else's."""
        if not await self._ours.confirm():
            self.nudge()

    async def leave(self) -> None:
        """Frees what we have. Where that fails the others wait until the lease is over: nothing is lost by it."""
        with suppress(DriverError, OutcomeUnknown):
            await self._ours.leave()

    async def _keep_up(self) -> None:
        while True:
            try:
                await self._ours.round()
            except (TransientDriverError, OutcomeUnknown) as error:
                # The next look repeats what is left to do.
                self._note(error)
                await anyio.sleep(min(self._ours.interval, AGAIN_SECONDS))
                continue

            self._trouble, self._note_at = None, -math.inf
            # What was rung while it looked leads to another look.
            await self._look_bell.wait(self._ours.interval)

    def _note(self, error: TransientDriverError | OutcomeUnknown) -> None:
        """Has the next fetch say it: a full disk lets everybody read on, and only here is it met.

        Not after each look: fetches that fail in a row have the runtime pause for long, beyond the end of the trouble.
        """
        now = anyio.current_time()
        if now >= self._note_at:
            self._note_at = now + self._ours.interval
            self._trouble = _trouble(error)
            self._fetch_bell.end()


def _trouble(error: TransientDriverError | OutcomeUnknown) -> TransientDriverError:
    """A change whose outcome nobody knows is made again, too: it is trouble of the same kind."""
    if isinstance(error, TransientDriverError):
        return error

    trouble = TransientDriverError(f"the group cannot be written: {error}", slot="source", operation="rebalance")
    trouble.__cause__ = error
    return trouble
