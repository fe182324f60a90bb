"""What can go wrong between a program and its broker, and when."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

Kind: TypeAlias = Literal[
    "refused", "reply_lost", "reply_late", "hang", "disconnect", "rebalance", "expire", "crash", "crash_after"
]

KINDS: tuple[Kind, ...] = get_args(Kind)

OPERATIONS = (
    "driver.open",
    "source.fetch",
    "source.commit",
    "source.committed",
    "source.start_offsets",
    "source.end_offsets",
    "source.offsets_at",
    "source.read",
    "source.settle",
    "source.extend",
    "sink.partitions",
    "sink.append",
    "state.get",
    "state.put",
    "dead_letters.put",
    "admin.create_topic",
    "admin.delete_topic",
    "admin.topics",
)


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong at one call.

    Kinds:

    * ``refused``: the call fails before it had an effect.
    * ``reply_lost``: the effect happens and the call fails. (A fetch of a log fails without effect: the position that
      it would have moved is the client's own.)
    * ``reply_late``: the effect happens at once, and the call returns after ``seconds``. (A fetch: as ``hang``, since
      what it has taken must not be lost if it is cancelled.)
    * ``hang``: the call waits ``seconds``, and then does what it should. For ever by default: until it is cancelled.
    * ``disconnect``: for ``seconds`` this call and all others of the driver fail, before they have an effect.
    * ``rebalance``: all members of the groups that the driver reads a log for give up everything and get it back; then
      the call goes on.
    * ``expire``: the oldest member of each of these groups loses its partitions unasked; then the call goes on.
    * ``crash``, ``crash_after``: the process ends before or after the effect. From then on no call returns or has an
      effect: ``FaultyDriver.crashed`` is set, and the test cancels what it runs and starts again.

    Attributes:
        operation: one of :data:`OPERATIONS`.
        kind: what happens.
        call: at which call of the operation, counted from 1.
        seconds: for how long, where the kind says so.
    """

    operation: str
    kind: Kind
    call: int = 1
    seconds: float = math.inf

    def __post_init__(self) -> None:
        for name, value, known in (("operation", self.operation, OPERATIONS), ("kind", self.kind, KINDS)):
            if value not in known:
                raise ValueError(f"{name}={value!r}: expected one of {', '.join(known)}")

        if self.call < 1:
            raise ValueError(f"call={self.call}: calls are counted from 1")

        if self.kind == "disconnect" and math.isinf(self.seconds):
            raise ValueError("a disconnect that never ends is a driver that does not work: give it seconds")


class FaultPlan:
    """A plan of which calls go wrong, and a record of those that did.

    Attributes:
        calls: how often each operation was called. A run without faults tells where faults can be put.
        injected: the faults that happened, in order.
    """

    def __init__(self, *faults: Fault) -> None:
        self.calls: Counter[str] = Counter()
        self.injected: list[Fault] = []
        self._planned = {(fault.operation, fault.call): fault for fault in faults}
        self._rng: random.Random | None = None
        self._rate = 0.0
        self._most = 0
        self._kinds: Sequence[Kind] = ()
        self._operations: Sequence[str] = ()
        self._seconds = 0.0

    @classmethod
    def random(
        cls,
        seed: int,
        *,
        rate: float = 0.05,
        most: int = 20,
        kinds: Sequence[Kind] = ("refused", "reply_lost", "reply_late", "hang", "disconnect", "rebalance", "expire"),
        operations: Sequence[str] = OPERATIONS,
        seconds: float = 3.0,
    ) -> FaultPlan:
        """Makes a plan of faults drawn at random: for one seed, the same faults in the same sequence of calls.

        Args:
            seed: decides what is drawn.
            rate: which part of the calls goes wrong, from 0 to 1.
            most: how many faults there are in all, so that a program has the time to recover.
            kinds: the kinds to draw from.
            operations: the operations that may go wrong.
            seconds: the longest hang, disconnect or late reply.
        """
        plan = cls()
        plan._rng = random.Random(seed)
        plan._rate, plan._most, plan._seconds = rate, most, seconds
        plan._kinds, plan._operations = tuple(kinds), tuple(operations)
        return plan

    def draw(self, operation: str) -> Fault | None:
        """Counts a call, and returns what is to go wrong with it."""
        self.calls[operation] += 1
        call = self.calls[operation]
        fault = self._planned.get((operation, call)) or self._drawn(operation, call)
        if fault is not None:
            self.injected.append(fault)

        return fault

    def _drawn(self, operation: str, call: int) -> Fault | None:
        if self._rng is None or operation not in self._operations or len(self.injected) >= self._most:
            return None

        if self._rng.random() >= self._rate:
            return None

        return Fault(operation, self._rng.choice(self._kinds), call, self._rng.uniform(0.1, 1.0) * self._seconds)

    def __repr__(self) -> str:
        return f"<FaultPlan injected {self.injected}>"
