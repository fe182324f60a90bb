"""Fetches: who is served, when the file is asked, and the waiting."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from operator import attrgetter

import anyio
from anyio.lowlevel import checkpoint

from rustmq_sdk._bell import FetchBell
from rustmq_sdk.drivers.sqlite.broadcast import Changed
from rustmq_sdk.drivers.sqlite.fair_shares import fair_shares
from rustmq_sdk.drivers.sqlite.file import LogFile
from rustmq_sdk.drivers.sqlite.holdings import Holding, Holdings
from rustmq_sdk.drivers.sqlite.membership_task import MembershipTask
from rustmq_sdk.drivers.sqlite.reading import Position, read_chunks
from rustmq_sdk.slots import Fetched
from rustmq_sdk.values import Assignment

READ_AHEAD = 256 * 1024
"""Bytes that one crossing to the reader's thread brings at least, if they are there: a crossing costs as much as
reading and decoding 500 small messages."""

PIECE = 100
"""Messages of one partition that a fetch brings at least, if it has them and there is room. A piece costs the runtime
10 to 20 us, whatever is in it: 1,000 partitions that share a fetch of 500 would cost as much as the messages ten times
over. They take turns instead, the one that was served longest ago first."""

PARTITIONS_AT_ONCE = 64
"""What one crossing reads at most: each brings a whole batch, and what is read last waits for all.
Fewer where the batches are large."""

_served = attrgetter("served")
_last_read = attrgetter("last_read")


class Fetching:
    """One thread crossing a fetch, and none while what was read before suffices.

    Args:
        file: the log.
        holdings: what may be fetched.
        membership: asked, after a silence, whether it still is ours.
        bell: ends the waiting of a fetch, whoever does it.
    """

    def __init__(self, file: LogFile, holdings: Holdings, membership: MembershipTask, bell: FetchBell) -> None:
        self._file = file
        self._holdings = holdings
        self._membership = membership
        self._fetches = 0
        self._reads = 0
        self._bell = bell

    def wake(self) -> None:
        """Has the waiting fetch, or the next one, return."""
        self._bell.end()

    def look_again(self) -> None:
        """There may be something to fetch that was not before."""
        self._bell.ring()

    def heard(self, keys: Changed) -> None:
        """Partitions grew; None: any of them may have."""
        for holding in self._holdings:
            if keys is None or holding.partition in keys:
                holding.cursor.grew()
                self._bell.ring()

    async def fetch(
        self, wanted: Collection[Assignment], max_messages: int, max_bytes: int, max_wait: float
    ) -> Sequence[Fetched]:
        """Fills :meth:`rustmq_sdk.slots.Subscription.fetch`."""
        deadline = anyio.current_time() + max_wait
        while True:
            # Before the look: what happens after this line is not slept through below.
            self._bell.rearm()
            self._membership.check()
            pieces = await self._pieces(wanted, max_messages, max_bytes)
            if pieces or self._bell.ended or not await self._rings_before(deadline):
                self._bell.ended = False
                return pieces

    async def _rings_before(self, deadline: float) -> bool:
        left = deadline - anyio.current_time()
        # Where the time is over nobody is asked: others who write all the time would keep the fetch for ever.
        return left > 0 and await self._bell.wait(left)

    async def _pieces(self, wanted: Collection[Assignment], max_messages: int, max_bytes: int) -> list[Fetched]:
        await self._membership.confirm()
        await checkpoint()
        while True:
            busy = self._busy(wanted)
            needy = [holding for holding in busy if not holding.cursor.available]
            unread = 0
            if needy and not all(map(_has_some, _first(busy, max_messages))):
                # Not by when they were served: those that have nothing never are, and would be looked at every time.
                chosen = sorted(needy, key=_last_read)[:PARTITIONS_AT_ONCE]
                share = len(chosen) / len(busy)
                most = max(max_bytes, READ_AHEAD) - sum(holding.cursor.waiting_bytes for holding in busy)
                read = await self._read(chosen, round(max_messages * share), round(max_bytes * share), most)
                unread = len(needy) - read
                # The answer must not cross a revocation or a seek: what is ours is asked again after the await.
                busy = self._busy(wanted)

            pieces = self._hand_out(list(_first(filter(_has_some, busy), max_messages)), max_messages, max_bytes)
            if pieces or self._bell.ended or not unread:
                return pieces

    def _busy(self, wanted: Collection[Assignment]) -> list[Holding]:
        """What may be served and may have something, the ones that waited longest first."""
        found = self._holdings.of(wanted)
        return sorted([holding for holding in found if holding.flowing and holding.cursor.promising], key=_served)

    async def _read(self, needy: Sequence[Holding], max_messages: int, max_bytes: int, most: int) -> int:
        """How many of them were looked at: ``most`` bytes may be used up before it is everybody's turn."""
        self._reads += 1
        cursors = [(holding.cursor, holding.cursor.growths) for holding in needy]
        ahead = READ_AHEAD // len(cursors)
        positions = [Position(cursor.partition, cursor.read_to) for cursor, _ in cursors]
        chunks = await self._file.read("source", "fetch", read_chunks, positions, max_messages, max_bytes, ahead, most)
        for holding, (cursor, growths), chunk in zip(needy, cursors, chunks, strict=False):
            holding.last_read = self._reads
            cursor.store(chunk, growths)

        return len(chunks)

    def _hand_out(self, holdings: Sequence[Holding], max_messages: int, max_bytes: int) -> list[Fetched]:
        self._fetches += 1
        pieces: list[Fetched] = []
        granted = fair_shares([holding.cursor.available for holding in holdings], max_messages)
        for holding, share in zip(holdings, granted, strict=True):
            piece = holding.cursor.take(share, max_bytes, at_least=0 if pieces else 1) if share else None
            if piece is not None:
                holding.served = self._fetches
                pieces.append(piece)
                max_bytes -= piece.size

        return pieces


def _has_some(holding: Holding) -> bool:
    return holding.cursor.available > 0


def _first(holdings: Iterable[Holding], max_messages: int) -> Iterator[Holding]:
    """Those whose turn it is: as many as it takes to fill a fetch, if each brings a piece."""
    room = max_messages
    for holding in holdings:
        if room <= 0:
            return

        yield holding
        room -= min(holding.cursor.available or PIECE, PIECE)
