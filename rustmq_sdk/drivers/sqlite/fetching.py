"""Fetches: who is served, when the file is asked, and the waiting."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import anyio
from anyio.lowlevel import checkpoint

from rustmq_sdk.drivers.sqlite.file import LogFile
from rustmq_sdk.drivers.sqlite.holdings import Holding, Holdings
from rustmq_sdk.drivers.sqlite.members import Members
from rustmq_sdk.drivers.sqlite.reading import Want, look_at_all
from rustmq_sdk.drivers.sqlite.share import shares
from rustmq_sdk.drivers.sqlite.wake import Changed, Stir
from rustmq_sdk.slots import Fetched
from rustmq_sdk.values import Assignment

READ_AHEAD = 256 * 1024
"""Bytes that one crossing to the reader's thread brings at least, if they are there: a crossing costs as much as
reading and decoding 500 small messages."""


class Fetching:
    """One thread crossing a fetch, and none while what was read before suffices.

    Args:
        file: the log.
        holdings: what may be fetched.
        members: asked, after a silence, whether it still is ours.
        stir: ends the waiting of a fetch, whoever does it.
    """

    def __init__(self, file: LogFile, holdings: Holdings, members: Members, stir: Stir) -> None:
        self._file = file
        self._holdings = holdings
        self._members = members
        self._fetches = 0
        self._stir = stir

    def wake(self) -> None:
        """Has the waiting fetch, or the next one, return."""
        self._stir.leave()

    def look_again(self) -> None:
        """There may be something to fetch that was not before."""
        self._stir.look()

    def heard(self, keys: Changed) -> None:
        """Partitions grew; None: any of them may have."""
        for holding in self._holdings:
            if keys is None or holding.partition in keys:
                holding.cursor.ring()
                self._stir.look()

    async def fetch(
        self, wanted: Collection[Assignment], max_messages: int, max_bytes: int, max_wait: float
    ) -> Sequence[Fetched]:
        """Fills :meth:`rustmq_sdk.slots.Subscription.fetch`."""
        deadline = anyio.current_time() + max_wait
        while True:
            # Before the look: whatever stirs after this line is not slept through below.
            self._stir.rearm()
            self._members.check()
            pieces = await self._look(wanted, max_messages, max_bytes)
            if pieces or self._stir.left or not await self._stirs_before(deadline):
                self._stir.left = False
                return pieces

    async def _stirs_before(self, deadline: float) -> bool:
        with anyio.CancelScope(deadline=deadline):
            await self._stir.wait()
            return True

        return False

    async def _look(self, wanted: Collection[Assignment], max_messages: int, max_bytes: int) -> list[Fetched]:
        await self._members.confirm()
        busy = [
            holding for holding in self._flowing(wanted) if holding.cursor.available or not holding.cursor.exhausted
        ]
        needy = [holding for holding in busy if not holding.cursor.available]
        if needy:
            share = len(needy) / len(busy)
            await self._read(needy, round(max_messages * share), round(max_bytes * share))
        else:
            await checkpoint()

        # The answer must not cross a revocation or a seek: who flows is asked again after the await.
        return self._hand_out(self._flowing(wanted), max_messages, max_bytes)

    def _flowing(self, wanted: Collection[Assignment]) -> list[Holding]:
        """What may be served, the ones that waited longest first."""
        found = (self._holdings.get(assignment) for assignment in wanted)
        return sorted(
            (holding for holding in found if holding is not None and holding.flowing),
            key=lambda holding: holding.served,
        )

    async def _read(self, needy: Sequence[Holding], max_messages: int, max_bytes: int) -> None:
        cursors = [(holding.cursor, holding.cursor.rings) for holding in needy]
        ahead = READ_AHEAD // len(cursors)
        wants = [Want(cursor.partition, cursor.read_to, 0, 0, ahead) for cursor, _ in cursors]
        chunks = await self._file.read("source", "fetch", look_at_all, wants, max_messages, max_bytes)
        for (cursor, rings), chunk in zip(cursors, chunks, strict=True):
            cursor.store(chunk, rings)

    def _hand_out(self, holdings: Sequence[Holding], max_messages: int, max_bytes: int) -> list[Fetched]:
        self._fetches += 1
        pieces: list[Fetched] = []
        granted = shares([holding.cursor.available for holding in holdings], max_messages)
        for holding, share in zip(holdings, granted, strict=True):
            piece = holding.cursor.take(share, max_bytes, at_least=0 if pieces else 1) if share else None
            if piece is not None:
                holding.served = self._fetches
                pieces.append(piece)
                max_bytes -= piece.size

        return pieces
