"""A source between the runtime and the faults that writes down what the runtime asks for, and when it must not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from rustmq_sdk.slots import Ack, AnySubscription, AssignmentListener, Capabilities, Nack, Source, Term
from rustmq_sdk.values import Assignment, Checkpoint, CommitOutcome, TopicPartition
from tests.faults.journal import Journal
from tests.faults.records import Owner


class WatchedSource:
    """Fills :class:`~rustmq_sdk.slots.Source` by another one."""

    def __init__(self, source: Source, journal: Journal, owner: Owner) -> None:
        self._source = source
        self._journal = journal
        self._owner = owner

    @property
    def capabilities(self) -> Capabilities:
        return self._source.capabilities

    def subscribe(self, listener: AssignmentListener) -> AbstractAsyncContextManager[AnySubscription]:
        return self._subscribe(listener)

    @asynccontextmanager
    async def _subscribe(self, listener: AssignmentListener) -> AsyncIterator[Any]:
        watched = WatchedListener(listener, self._journal, self._owner)
        async with self._source.subscribe(watched) as subscription:
            inner: Any = subscription
            self._owner.memberships.append(inner._subscription.membership)
            yield WatchedSubscription(subscription, watched, self._journal, self._owner)


class WatchedListener:
    """Knows of every assignment whether it may still be committed."""

    def __init__(self, listener: AssignmentListener, journal: Journal, owner: Owner) -> None:
        self._listener = listener
        self._journal = journal
        self._owner = owner
        self.over: dict[Assignment, str] = {}

    async def assigned(
        self, partitions: Collection[TopicPartition], generation: int | None, *, reason: str = "assigned"
    ) -> Mapping[Assignment, int | None]:
        for tp in partitions:
            self._journal.assigned(self._owner, tp)

        return await self._listener.assigned(partitions, generation, reason=reason)

    async def revoking(self, assignments: Collection[Assignment], budget: float) -> None:
        self._journal.note(f"{self._owner.name} is asked for {sorted(each.tp for each in assignments)}")
        await self._listener.revoking(assignments, budget)
        self.over.update(dict.fromkeys(assignments, "given up"))

    async def lost(self, assignments: Collection[Assignment], *, reason: str = "lost") -> None:
        self._journal.note(f"{self._owner.name} has lost {sorted(each.tp for each in assignments)}")
        await self._listener.lost(assignments, reason=reason)
        self.over.update(dict.fromkeys(assignments, "lost"))


class WatchedSubscription:
    """Fills both kinds of subscription."""

    def __init__(self, subscription: Any, listener: WatchedListener, journal: Journal, owner: Owner) -> None:
        self._subscription = subscription
        self._listener = listener
        self._journal = journal
        self._owner = owner
        self._calls: dict[str, int] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._subscription, name)

    async def fetch(self, wanted: Collection[Assignment], **limits: Any) -> Any:
        with self._alone("fetch"):
            return await self._subscription.fetch(wanted, **limits)

    async def commit(self, checkpoints: Mapping[Assignment, Checkpoint]) -> Mapping[Assignment, CommitOutcome]:
        for assignment in checkpoints:
            over = self._listener.over.get(assignment)
            if over is not None:
                self._journal.broken(f"{self._owner.name} commits {assignment.tp}, which was {over}")

        with self._alone("commit"):
            result: Mapping[Assignment, CommitOutcome] = await self._subscription.commit(checkpoints)
            return result

    def seek(self, old: Assignment, new: Assignment, offset: int) -> None:
        self._subscription.seek(old, new, offset)
        self._listener.over[old] = "left by a seek"

    async def settle(self, settlements: Sequence[Ack | Nack | Term]) -> Any:
        for settlement in settlements:
            if not isinstance(settlement, Nack):
                lease: Any = settlement.receipt.token
                self._journal.settled_at_broker(lease.record[3], dead=isinstance(settlement, Term))

        with self._alone("settle"):
            return await self._subscription.settle(settlements)

    def _alone(self, operation: str) -> Alone:
        return Alone(self._calls, operation, self._journal, self._owner)


class Alone:
    """Two calls at once of one kind are a violation: commits would collide, fetches would be torn."""

    def __init__(self, calls: dict[str, int], operation: str, journal: Journal, owner: Owner) -> None:
        self._calls = calls
        self._operation = operation
        self._journal = journal
        self._owner = owner

    def __enter__(self) -> None:
        self._calls[self._operation] = self._calls.get(self._operation, 0) + 1
        if self._calls[self._operation] > 1:
            self._journal.broken(f"{self._owner.name} makes two calls of {self._operation} at once")

    def __exit__(self, *exc_info: object) -> None:
        self._calls[self._operation] -= 1
