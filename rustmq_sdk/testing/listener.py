"""An assignment listener for tests of drivers: it behaves as the runtime does, and keeps a record."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple, TypeAlias, cast

import anyio

from rustmq_sdk.observe import REASONS
from rustmq_sdk.slots import AnySubscription, LogSubscription
from rustmq_sdk.values import Assignment, TopicPartition

OnRevoking: TypeAlias = Callable[[Collection[Assignment], float], Awaitable[None]]

FROM_A_TASK = (
    "A listener is called from a task of the driver's own, and never from within fetch(): no call may wait for a fetch"
)
"""What is to be done where a call does not come; :class:`~rustmq_sdk.slots.AssignmentListener` says it as well."""


class Call(NamedTuple):
    """A call that a driver has made.

    Attributes:
        name: ``"assigned"``, ``"revoking"`` or ``"lost"``.
        partitions: the partitions that it was about, sorted.
        generation: the generation given to ``assigned``; None in other calls.
        budget: the seconds given to ``revoking``; None in other calls.
        reason: the reason given to ``assigned`` or ``lost``; None in ``revoking``.
    """

    name: str
    partitions: tuple[TopicPartition, ...]
    generation: int | None = None
    budget: float | None = None
    reason: str | None = None


class RecordingListener:
    """A listener that answers a driver as the runtime does.

    It starts each partition at its committed position, else at the log's start. Give it the ``subscription`` as soon as
    ``subscribe()`` was entered. What a driver must not do (calling before that, two calls at once, revoking what it
    never assigned) is an ``AssertionError`` inside the call and in :attr:`violations`.

    Args:
        committed: whether there is a group, and so positions to ask for.
        starts: offsets to start at, instead.
        on_revoking: awaited inside ``revoking``, which returns when it does.
    """

    def __init__(
        self,
        *,
        committed: bool = True,
        starts: Mapping[TopicPartition, int] | None = None,
        on_revoking: OnRevoking | None = None,
    ) -> None:
        self.subscription: AnySubscription | None = None
        self.calls: list[Call] = []
        self.assignments: dict[TopicPartition, Assignment] = {}
        """What may be fetched now."""
        self.released: dict[TopicPartition, Assignment] = {}
        """What was revoked and neither lost nor assigned again yet."""
        self.gone: list[Assignment] = []
        """What was lost."""
        self.violations: list[str] = []
        self.on_revoking = on_revoking
        self._committed = committed
        self._starts = starts or {}
        self._inside: str | None = None
        self._changed = anyio.Event()

    async def assigned(
        self, partitions: Collection[TopicPartition], generation: int | None, *, reason: str = "assigned"
    ) -> Mapping[Assignment, int | None]:
        call = Call("assigned", tuple(sorted(partitions)), generation=generation, reason=reason)
        with self._recorded(call):
            self._check(reason in REASONS, f"unknown reason {reason!r}: one of {', '.join(REASONS)}")
            self._check(not (twice := set(partitions) & set(self.assignments)), f"assigned twice: {twice}")
            starts = await self._find_starts(partitions)
            epoch = None if generation is None else generation << 16
            new = {tp: Assignment(tp, epoch) for tp in partitions}
            for tp in partitions:
                self.released.pop(tp, None)

            self.assignments |= new
            return {new[tp]: starts[tp] for tp in partitions}

    async def revoking(self, assignments: Collection[Assignment], budget: float) -> None:
        tps = {assignment.tp: assignment for assignment in assignments}
        with self._recorded(Call("revoking", tuple(sorted(tps)), budget=budget)):
            for tp, assignment in tps.items():
                self._check(self.assignments.pop(tp, None) is assignment, f"revoking {tp}, which is not ours")

            if self.on_revoking is not None:
                await self.on_revoking(assignments, budget)

            self.released |= tps

    async def lost(self, assignments: Collection[Assignment], *, reason: str = "lost") -> None:
        tps = tuple(sorted(assignment.tp for assignment in assignments))
        with self._recorded(Call("lost", tps, reason=reason)):
            self._check(reason in REASONS, f"unknown reason {reason!r}: one of {', '.join(REASONS)}")
            for assignment in assignments:
                held = self.assignments.pop(assignment.tp, None) or self.released.pop(assignment.tp, None)
                self._check(held is assignment, f"lost {assignment.tp}, which is not ours")
                self.gone.append(assignment)

    async def until(self, condition: Callable[[], bool], within: float) -> None:
        """Waits until the condition holds, looking after each call of the driver.

        Raises:
            TimeoutError: it does not hold after ``within`` seconds; the message has the calls so far.
        """
        before = len(self.calls)
        with anyio.move_on_after(within):
            while not condition():
                await self._changed.wait()

        if not condition():
            hint = "" if len(self.calls) > before else f". {FROM_A_TASK}"
            raise TimeoutError(f"not within {within:g} s; the driver called: {self.calls or 'nothing'}{hint}")

    @contextmanager
    def _recorded(self, call: Call) -> Iterator[None]:
        self._check(self.subscription is not None, f"{call.name} was called before subscribe() was entered")
        self._check(self._inside is None, f"{call.name} was called while {self._inside} is running")
        self._inside = call.name
        try:
            yield
        finally:
            self._inside = None
            self.calls.append(call)
            self._changed.set()
            self._changed = anyio.Event()

    async def _find_starts(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int | None]:
        if any(tp.partition is None for tp in partitions):
            return dict.fromkeys(partitions)

        subscription = cast("LogSubscription", self.subscription)
        starts: dict[TopicPartition, int | None] = dict(await subscription.start_offsets(partitions))
        if self._committed:
            committed = await subscription.committed(partitions)
            starts |= {tp: checkpoint.offset for tp, checkpoint in committed.items() if checkpoint is not None}

        return starts | {tp: offset for tp, offset in self._starts.items() if tp in starts}

    def _check(self, condition: bool, problem: str) -> None:
        if not condition:
            self.violations.append(problem)
            raise AssertionError(problem)
