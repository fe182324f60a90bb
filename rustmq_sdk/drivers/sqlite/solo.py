"""A consumer without a group: it has all partitions of its topics, and commits nothing."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

from rustmq_sdk._bell import FetchBell
from rustmq_sdk.drivers.sqlite.file import LogFile
from rustmq_sdk.drivers.sqlite.holdings import Holdings
from rustmq_sdk.drivers.sqlite.topics import missing, partitions_of
from rustmq_sdk.slots import AssignmentListener, SourceRequest


class Solo:
    """Stands where a :class:`~rustmq_sdk.drivers.sqlite.membership.Membership` does for a group.

    Args:
        file: the log.
        request: the topics, and the lease, which sets how often to look for new ones.
        listener: whom to tell.
        holdings: kept up to date.
        bell: ends the waiting of a fetch when assignments change.
    """

    def __init__(
        self,
        file: LogFile,
        request: SourceRequest,
        listener: AssignmentListener,
        holdings: Holdings,
        bell: FetchBell,
    ) -> None:
        self.member = b""
        self.missing_topics: Mapping[str, str] = {}
        """What did not exist at the last look, and what to say of it."""
        self.interval = request.lease / 8
        self._file = file
        self._topics = request.topics
        self._listener = listener
        self._holdings = holdings
        self._bell = bell
        self._joined = False

    async def round(self) -> None:
        """Notices topics that came or went."""
        existing = await self._file.read("source", "rebalance", partitions_of, self._topics)
        self.missing_topics = missing(self._topics, existing)
        ids = set(existing.values())
        lost = [holding for holding in self._holdings if holding.partition not in ids]
        if lost:
            assignments = [holding.assignment for holding in lost]
            self._holdings.drop(lost)
            self._bell.end()
            await self._listener.lost(assignments, reason="topics_changed")

        held = {holding.partition for holding in self._holdings}
        fresh = {tp: partition for tp, partition in existing.items() if partition not in held}
        if fresh:
            reason = "topics_changed" if self._joined else "joined"
            self._holdings.take(await self._listener.assigned(list(fresh), None, reason=reason), fresh, 0)
            self._bell.end()

        self._joined = True

    def beating(self) -> AbstractContextManager[None]:
        """Nobody waits for a sign of life."""
        return nullcontext()

    async def confirm(self) -> bool:
        """Nobody else can have taken anything."""
        return True

    async def leave(self) -> None:
        """There is nothing to free."""
