"""One member of a group: joins, beats, claims what the plan gives it, releases what others are to have."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from rustmq_sdk._bell import FetchBell
from rustmq_sdk.drivers.sqlite import claims
from rustmq_sdk.drivers.sqlite.beats import BeatWatch
from rustmq_sdk.drivers.sqlite.claims import Claimed, Stepped
from rustmq_sdk.drivers.sqlite.file import LogFile
from rustmq_sdk.drivers.sqlite.group import View, view
from rustmq_sdk.drivers.sqlite.heartbeat import Heartbeat
from rustmq_sdk.drivers.sqlite.holdings import Holding, Holdings
from rustmq_sdk.drivers.sqlite.member_lock import MemberLock, PeerLock, remove, sweep
from rustmq_sdk.drivers.sqlite.topics import missing
from rustmq_sdk.drivers.sqlite.transaction import Queries
from rustmq_sdk.slots import AssignmentListener, SourceRequest


class Membership:
    """Calls the listener, serially, from :meth:`round`.

    Args:
        file: the log.
        request: topics, group (not None here), lease and revoke budget.
        listener: whom to tell.
        holdings: kept up to date.
        bell: ends the waiting of a fetch when assignments change.
        missed: called, from any thread, when a heartbeat found that we were expired.
    """

    def __init__(
        self,
        file: LogFile,
        request: SourceRequest,
        listener: AssignmentListener,
        holdings: Holdings,
        bell: FetchBell,
        missed: Callable[[], None],
    ) -> None:
        self.member = b""
        self.missing_topics: Mapping[str, str] = {}
        """What did not exist at the last look, and what to say of it."""
        self.interval = request.lease / 8
        """Seconds between two looks at the group; the beats of others must be seen every lease / 4."""
        self._file = file
        self._request = request
        self._group = request.group or ""
        self._listener = listener
        self._holdings = holdings
        self._bell = bell
        self._beats = BeatWatch(request.lease)
        self._lock: MemberLock | None = None
        self._joining = False
        self._wanting: dict[int, tuple[int, float]] = {}
        self._heartbeat = Heartbeat(self._group, request.lease, file.request, missed)

    async def round(self) -> None:
        """Looks at the group and does what follows from it."""
        self._heartbeat.live()
        look = await self._look()
        if self.member not in look.group.members:
            await self._lose(list(self._holdings), "expired")
            await self._join(look.ended)
            look = await self._look()

        self.missing_topics = missing(self._request.topics, look.group.partitions)
        lost = [holding for holding in self._holdings if not self._owns(look.group, holding)]
        there = set(look.group.partitions.values())
        await self._lose([holding for holding in lost if holding.partition not in there], "topics_changed")
        await self._lose([holding for holding in lost if holding.partition in there], "overdue")
        claims = look.group.claims
        await self._give_up([h for h in self._holdings if h.revoked or claims[h.partition].wanted_by is not None])
        stepped = await self._step(look)
        if stepped.claimed:
            await self._take(stepped.claimed)

        await self._tidy(stepped.expired)

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Sends heartbeats meanwhile."""
        self._file.watcher.ticks.add(self._heartbeat.tick)
        try:
            yield
        finally:
            self._file.watcher.ticks.discard(self._heartbeat.tick)

    async def confirm(self) -> bool:
        """After a silence of ours: stops delivering what became somebody else's. False if anything did."""
        self._heartbeat.live()
        if self._heartbeat.silent_for() <= self._request.lease / 2:
            return True

        asked_at = time.monotonic()
        group = await self._file.read("source", "fetch", view, self._group)
        ours = self.member in group.members
        for holding in self._holdings:
            if not (ours and self._owns(group, holding)):
                ours = holding.flowing = False

        if ours:
            self._heartbeat.confirm(asked_at)

        return ours

    async def leave(self) -> None:
        """Frees everything, for the others to claim at once."""
        self._heartbeat.stop()
        self._file.watcher.forget_peers(self)
        lock, self._lock = self._lock, None
        try:
            if self.member:
                await self._file.write("source", "leave", claims.leave, self._group, self.member)

            if lock is not None:
                lock.release()
        finally:
            # We may be in the group still: a free lock tells the others that we have ended, as long as it is there.
            if lock is not None:
                lock.let_go()

    async def _look(self) -> _Look:
        look = await self._file.read("source", "rebalance", _look, self._file.path, self._group, self.member)
        self._file.watcher.watch_peers(self, look.locks)
        return look

    async def _join(self, ended: Collection[bytes]) -> None:
        # A new name each time: what the old one still has under way is fenced.
        member = os.urandom(16)
        lock = await self._file.read("source", "join", _lock, self._file.path, member)
        asked_at = time.monotonic()
        await self._file.write(
            "source",
            "join",
            claims.join,
            self._group,
            member,
            self._request.topics,
            log=self._file.path,
            lock=lock.inode,
            ended=ended,
        )
        before, self._lock = self._lock, lock
        self.member, self._joining = member, True
        self._heartbeat.start(member, asked_at)
        self._file.watcher.hurry()
        if before is not None:
            before.release()

        await self._tidy(ended)

    async def _tidy(self, expired: Collection[bytes]) -> None:
        if expired:
            await self._file.read("source", "rebalance", _remove, self._file.path, expired)

    def _owns(self, group: View, holding: Holding) -> bool:
        claim = group.claims.get(holding.partition)
        return claim is not None and (claim.owner, claim.epoch) == (self.member, holding.epoch)

    async def _lose(self, lost: Sequence[Holding], reason: str) -> None:
        if lost:
            assignments = [holding.assignment for holding in lost]
            self._holdings.drop(lost)
            self._bell.end()
            await self._listener.lost(assignments, reason=reason)

    async def _give_up(self, wanted: Sequence[Holding]) -> None:
        """Two steps: the listener settles and commits what it can, then the others may claim."""
        if not wanted:
            return

        untold = [holding.assignment for holding in wanted if not holding.revoked]
        for holding in wanted:
            holding.flowing, holding.revoked = False, True

        if untold:  # all but those whose release failed the last time
            self._bell.end()
            await self._listener.revoking(untold, self._request.revoke_budget)

        epochs = {holding.partition: holding.epoch for holding in wanted}
        await self._file.write("source", "release", claims.release, self._group, self.member, epochs)
        await self._lose(wanted, "moved")

    async def _step(self, look: _Look) -> Stepped:
        group, now = look.group, time.monotonic()
        silent = self._beats.look(
            now,
            {id_: each.beat for id_, each in group.members.items() if id_ != self.member},
            silent_for=self._heartbeat.silent_for(),
        )
        overdue = self._overdue(group, now)
        joining, self._joining = self._joining, False
        held = {holding.partition: holding.epoch for holding in self._holdings}
        if not (look.ended or silent or overdue) and group.settled(self.member, held):
            return Stepped((), ())

        stepped = await self._file.write(
            "source",
            "rebalance",
            claims.step,
            self._group,
            self.member,
            held=held,
            ended=look.ended,
            silent=silent,
            overdue=overdue,
        )
        if joining:
            return stepped._replace(claimed=[each._replace(reason="joined") for each in stepped.claimed])

        return stepped

    def _overdue(self, group: View, now: float) -> dict[int, int]:
        """What we have been waiting for longer than its owner could need to release it."""
        allowed = self._request.revoke_budget + self._request.lease / 2
        waiting = {
            partition: claim.epoch
            for partition, claim in group.claims.items()
            if claim.wanted_by == self.member and claim.owner is not None
        }
        since = self._wanting
        self._wanting = {
            partition: since[partition] if since.get(partition, (0, 0))[0] == epoch else (epoch, now)
            for partition, epoch in waiting.items()
        }
        return {partition: epoch for partition, (epoch, at) in self._wanting.items() if now - at >= allowed}

    async def _take(self, claimed: Sequence[Claimed]) -> None:
        """Tells the listener, once for each epoch and reason, and starts reading where it says."""
        waiting = {each.partition: each.epoch for each in claimed}
        alike = attrgetter("epoch", "reason")
        try:
            for (epoch, reason), group in groupby(sorted(claimed, key=alike), alike):
                fresh = {each.tp: each.partition for each in group}
                starts = await self._listener.assigned(list(fresh), epoch, reason=reason)
                self._holdings.take(starts, fresh, epoch)
                for partition in fresh.values():
                    del waiting[partition]
        except Exception:
            await self._file.write("source", "release", claims.release, self._group, self.member, waiting)
            raise
        finally:
            self._bell.end()


class _Look(NamedTuple):
    """The group as it was, whose locks to watch, and who of them has ended."""

    group: View
    locks: Collection[PeerLock]
    ended: Collection[bytes]


# On the reader's thread: files that are slow shall not hold up the loop.


def _look(queries: Queries, log: Path, group: str, me: bytes) -> _Look:
    state = view(queries, group)
    locks = state.locks(log, me)
    ended = {member for member, lock in locks.items() if lock.free()}
    state.check_protocol(log, group, ended)
    return _Look(state, tuple(locks.values()), ended)


def _lock(queries: Queries, log: Path, member: bytes) -> MemberLock:
    sweep(log, [id_ for (id_,) in queries.rows("SELECT id FROM member")])
    return MemberLock(log, member)


def _remove(_queries: Queries, log: Path, members: Collection[bytes]) -> None:
    remove(log, members)
