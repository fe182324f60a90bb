"""One subscription's life in its group: the task that tells the listener what comes and goes, one thing at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager

import anyio

from rustmq_sdk._task_groups import raised_as_itself
from rustmq_sdk.drivers.memory.groups import Claim, Group, Member
from rustmq_sdk.errors import ConsumerStateError
from rustmq_sdk.slots import AssignmentListener
from rustmq_sdk.values import Assignment, TopicPartition

OnAssigned = Callable[[Mapping[Assignment, Claim], Mapping[Assignment, int | None]], None]


class Membership:
    """Compares what the member has with what the group says, and closes the gap one listener call after another.

    Args:
        budget: seconds, handed to ``revoking``.
        on_change: called when what may be fetched changes: a waiting fetch has to look again.
        on_assigned: takes over new assignments and the offsets to start at.
    """

    def __init__(
        self,
        group: Group,
        topics: Collection[str],
        listener: AssignmentListener,
        *,
        budget: float,
        fences: bool,
        on_change: Callable[[], None],
        on_assigned: OnAssigned,
    ) -> None:
        self.held: dict[Assignment, Claim] = {}
        """Assignments that may be fetched and committed."""
        self.revoking: dict[Assignment, Claim] = {}
        """Assignments on their way out: committed still, fetched no more."""
        self.released: list[Assignment] = []
        """Assignments given up, of which it is not known yet whether they come back."""
        self.failure: Exception | None = None
        """What the listener raised; ends the membership, and the next fetch raises it."""
        self._group = group
        self._listener = listener
        self._budget = budget
        self._fences = fences
        self._on_change = on_change
        self._on_assigned = on_assigned
        self._news = anyio.Event()
        self._left = False
        self._joining = False
        self.member = Member(topics, self._notify)

    def claim_of(self, assignment: Assignment) -> Claim | None:
        """The claim behind an assignment, perhaps a dead one; None if the partition is not ours under this name."""
        return self.held.get(assignment) or self.revoking.get(assignment)

    def rename(self, old: Assignment, new: Assignment) -> None:
        """``new`` takes the place of ``old`` after a seek."""
        for holding in (self.held, self.revoking):
            if old in holding:
                holding[new] = holding.pop(old)

    async def run(self) -> None:
        """Runs until cancelled, or until the listener fails."""
        try:
            # A task that was woken before it was cancelled gets one more turn; it must not join again after leave().
            while not self._left:
                self._news = anyio.Event()
                if not await self._step():
                    await self._news.wait()
        except Exception as error:  # the listener's: whoever fetches gets it
            self.failure = error
            self._on_change()

    def leave(self) -> None:
        """Gives everything back at once, without asking the listener."""
        self._left = True
        self._group.leave(self.member)
        self.held.clear()
        self.revoking.clear()

    async def _step(self) -> bool:
        """Closes one gap; False if there is none."""
        lost = [assignment for assignment, claim in self.held.items() if not claim.live]
        expired = not self._group.has(self.member)
        if expired:
            lost += self.released
            self.released = []

        if lost:
            # A live member's claim dies with its topic only.
            await self._lose(lost, "expired" if expired else "topics_changed")

        if expired:
            self._group.join(self.member)
            self._joining = True

        surplus = self._group.surplus(self.member)
        if surplus:
            await self._give_up(surplus)
            return True

        claims = self._group.claim(self.member)
        if self.released and self._group.is_settled:
            await self._part_with({claim.tp for claim in claims})

        joining, self._joining = self._joining, False
        if claims:
            await self._take(claims, joining=joining)

        return bool(lost or claims)

    async def _lose(self, lost: Sequence[Assignment], reason: str) -> None:
        for assignment in lost:
            self.held.pop(assignment, None)

        self._on_change()
        await self._listener.lost(lost, reason=reason)

    async def _give_up(self, surplus: Collection[Claim]) -> None:
        leaving = [assignment for assignment, claim in self.held.items() if claim in surplus]
        self.revoking = {assignment: self.held.pop(assignment) for assignment in leaving}
        self._on_change()
        if leaving:
            await self._listener.revoking(leaving, self._budget)

        # Not ``leaving``: a seek may have renamed some of them meanwhile.
        self.released += self.revoking
        self.revoking = {}
        self._group.release(surplus)

    async def _part_with(self, regained: Collection[TopicPartition]) -> None:
        """Reports what was given up and does not come back with the claims that are about to be reported."""
        gone = [assignment for assignment in self.released if assignment.tp not in regained]
        self.released = [assignment for assignment in self.released if assignment.tp in regained]
        if gone:
            await self._listener.lost(gone, reason="moved")

    async def _take(self, claims: Sequence[Claim], *, joining: bool) -> None:
        generation = claims[0].generation if self._fences else None
        reasons = {"joined"} if joining else {claim.reason for claim in claims}
        reason = reasons.pop() if len(reasons) == 1 else "assigned"
        starts = await self._listener.assigned([claim.tp for claim in claims], generation, reason=reason)
        by_partition = {claim.tp: claim for claim in claims}
        taken = {assignment: by_partition.pop(assignment.tp) for assignment in starts}
        _check_answer(list(by_partition))
        self.released = []
        self.held.update(taken)
        self._on_assigned(taken, starts)
        self._on_change()

    def _notify(self) -> None:
        self._news.set()


def _check_answer(missing: Sequence[TopicPartition]) -> None:
    if missing:
        names = ", ".join(str(tp) for tp in missing)
        raise ConsumerStateError(f"assigned() has to answer with an assignment for each partition, not for {names}")


@asynccontextmanager
async def running(membership: Membership) -> AsyncIterator[None]:
    """Runs the membership beside the body; leaves the group on the way out, whatever the way."""
    with raised_as_itself() as body:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(membership.run)
            with body:
                try:
                    yield
                finally:
                    membership.leave()

            tasks.cancel_scope.cancel()
