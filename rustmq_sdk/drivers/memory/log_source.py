"""The memory broker as a log: partitions, fetch positions, commits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from operator import attrgetter

from anyio.lowlevel import checkpoint

from rustmq_sdk._bell import FetchBell
from rustmq_sdk.drivers.memory.broker import MemoryBroker
from rustmq_sdk.drivers.memory.groups import Claim, Group
from rustmq_sdk.drivers.memory.log import Cut, PartitionLog, build, ringing
from rustmq_sdk.drivers.memory.membership import Membership, running
from rustmq_sdk.errors import ConsumerStateError, Unsupported
from rustmq_sdk.slots import AssignmentListener, Capabilities, Fetched, SourceRequest
from rustmq_sdk.values import Assignment, Checkpoint, CommitOutcome, TopicPartition

_served = attrgetter("served")


class Cursor:
    """Where one assignment reads."""

    __slots__ = ("assignment", "claim", "log", "position", "served")

    def __init__(self, assignment: Assignment, claim: Claim, log: PartitionLog, position: int) -> None:
        self.assignment = assignment
        self.claim = claim
        self.log = log
        self.position = position
        self.served = 0


class MemoryLogSource:
    """Fills :class:`~rustmq_sdk.slots.Source` for a log."""

    def __init__(self, broker: MemoryBroker, request: SourceRequest, capabilities: Capabilities) -> None:
        self._broker = broker
        self._request = request
        self._capabilities = capabilities

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    @asynccontextmanager
    async def subscribe(self, listener: AssignmentListener) -> AsyncIterator[MemoryLogSubscription]:
        request = self._request
        with self._group() as group:
            subscription = MemoryLogSubscription(self._broker, group, request, self._capabilities, listener)
            async with running(subscription.membership):
                yield subscription

    @contextmanager
    def _group(self) -> Iterator[Group]:
        if self._request.group is not None:
            yield self._broker.group(self._request.group)
            return

        with self._broker.private_group("log") as group:
            yield group


class MemoryLogSubscription:
    """Fills :class:`~rustmq_sdk.slots.LogSubscription`."""

    def __init__(
        self,
        broker: MemoryBroker,
        group: Group,
        request: SourceRequest,
        capabilities: Capabilities,
        listener: AssignmentListener,
    ) -> None:
        self.membership = Membership(
            group,
            request.topics,
            listener,
            budget=request.revoke_budget,
            fences=capabilities.fences,
            on_change=self._changed,
            on_assigned=self._start,
        )
        self._broker = broker
        self._group = group
        self._commits = request.group is not None
        self._capabilities = capabilities
        self._bell = FetchBell()
        self._cursors: dict[Assignment, Cursor] = {}
        self._turn = 0

    async def fetch(
        self, wanted: Collection[Assignment], *, max_messages: int, max_bytes: int, max_wait: float
    ) -> Sequence[Fetched]:
        self._bell.rearm()
        pieces = self._pieces(wanted, max_messages, max_bytes)
        if not pieces and not self._bell.ended:
            cursors = [self._cursors[assignment] for assignment in wanted if assignment in self._cursors]
            with ringing(self._bell, {cursor.log for cursor in cursors}):
                await self._bell.wait(max_wait)

            pieces = self._pieces(wanted, max_messages, max_bytes)

        self._bell.ended = False
        return pieces

    def wake(self) -> None:
        self._bell.end()

    @property
    def missing_topics(self) -> Mapping[str, str]:
        return self._broker.missing(self.membership.member.topics)

    async def commit(self, checkpoints: Mapping[Assignment, Checkpoint]) -> Mapping[Assignment, CommitOutcome]:
        self._must_commit("commit")
        for assignment, position in checkpoints.items():
            self._must_fit(assignment, position)

        await checkpoint()
        return {assignment: self._write(assignment, position) for assignment, position in checkpoints.items()}

    async def committed(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, Checkpoint | None]:
        await checkpoint()
        return {self._log(tp, "committed").tp: self._group.committed.get(tp) for tp in partitions}

    async def start_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        await checkpoint()
        return {tp: self._log(tp, "start_offsets").start for tp in partitions}

    async def end_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        await checkpoint()
        return {tp: self._log(tp, "end_offsets").end for tp in partitions}

    async def offsets_at(
        self, partitions: Collection[TopicPartition], timestamp_ms: int
    ) -> Mapping[TopicPartition, int]:
        self._must_have("offsets_at")
        await checkpoint()
        return {tp: self._log(tp, "offsets_at").offset_at_time(timestamp_ms) for tp in partitions}

    def seek(self, old: Assignment, new: Assignment, offset: int) -> None:
        self._must_have("seek")
        self.membership.rename(old, new)
        cursor = self._cursors.pop(old, None)
        if cursor is None:
            return  # being revoked: it is committed under its new name, and fetched no more

        self._cursors[new] = Cursor(new, cursor.claim, cursor.log, offset)
        self._bell.ring()

    async def read(self, assignment: Assignment, offsets: Sequence[int]) -> Fetched:
        self._must_have("read")
        await checkpoint()
        log = self._log(assignment.tp, "read")
        return _fetched(assignment, log, log.read(offsets))

    def _pieces(self, wanted: Collection[Assignment], max_messages: int, max_bytes: int) -> list[Fetched]:
        if self.membership.failure is not None:
            raise self.membership.failure

        ready = [
            cursor
            for cursor in map(self._cursors.get, wanted)
            if cursor is not None and cursor.position < cursor.log.end and cursor.claim.live
        ]
        # Whoever was served last goes to the end of the line, so nobody waits for more than one round of the others.
        if len(ready) > 1:
            ready.sort(key=_served)

        pieces: list[Fetched] = []
        for cursor in ready:
            if max_messages <= 0:
                break

            cut = cursor.log.cut(cursor.position, max_messages, max_bytes, at_least_one=not pieces)
            if cut.next_offset == cursor.position:
                continue

            self._turn += 1
            cursor.served = self._turn
            cursor.position = cut.next_offset
            max_messages -= len(cut.records) + len(cut.broken)
            max_bytes -= cut.size
            pieces.append(_fetched(cursor.assignment, cursor.log, cut))

        return pieces

    def _start(self, taken: Mapping[Assignment, Claim], starts: Mapping[Assignment, int | None]) -> None:
        for assignment, claim in taken.items():
            offset = starts[assignment]
            if offset is None:
                raise ConsumerStateError(f"assigned() has to say at which offset {assignment.tp} starts, and said None")

            if not claim.live:
                continue  # lost while assigned() was running, perhaps with its topic; lost() comes next

            log = self._broker.log(assignment.tp, operation="fetch")
            self._cursors[assignment] = Cursor(assignment, claim, log, offset)

    def _changed(self) -> None:
        held = self.membership.held
        self._cursors = {assignment: cursor for assignment, cursor in self._cursors.items() if assignment in held}
        self._bell.ring()

    def _write(self, assignment: Assignment, position: Checkpoint) -> CommitOutcome:
        if assignment in self.membership.released:
            return CommitOutcome.RETRY

        claim = self.membership.claim_of(assignment)
        written = claim is not None and self._group.commit(claim, position)
        return CommitOutcome.COMMITTED if written else CommitOutcome.FENCED

    def _log(self, tp: TopicPartition, operation: str) -> PartitionLog:
        return self._broker.log(tp, operation=operation)

    def _must_have(self, capability: str) -> None:
        if not getattr(self._capabilities, capability):
            raise Unsupported(f"this memory driver was opened without={capability}")

    def _must_commit(self, operation: str) -> None:
        if not self._commits:
            raise Unsupported(f"{operation}: a consumer without a group has no position to keep. Give it a group")

    def _must_fit(self, assignment: Assignment, position: Checkpoint) -> None:
        room = self._capabilities.checkpoint_room
        if room is not None and len(position.extra) > room:
            raise ConsumerStateError(
                f"the checkpoint of {assignment.tp} has {len(position.extra)} extra bytes, there is room for {room}"
            )


def _fetched(assignment: Assignment, log: PartitionLog, cut: Cut) -> Fetched:
    offsets, records, next_offset, size, broken, gone = cut
    largest = min(log.largest, size)
    return Fetched(assignment, offsets, records, build, next_offset, size, largest, broken, gone)
