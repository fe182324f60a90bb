"""Which partitions are ours, and whether one that comes back is still the same.

::

    (nobody's) ──assign──→ owned ──revoke──→ released ──assign, same or next generation,───→ owned again
                             │                  │        committed is what we wrote last       (same ledger)
                             └──────lose────────┴────lose, or anything else──→ lost (fenced)

Kafka's eager rebalance takes every partition away and gives most of them back a moment later. Starting those from the
committed offset would run a second time what is running right now. So a released partition keeps its ledger until it
is known where it went.
"""

from __future__ import annotations

from dataclasses import dataclass

from rustmq_sdk._core.ledger import Ledger
from rustmq_sdk._core.log_book import LogBook
from rustmq_sdk.errors import ConsumerStateError
from rustmq_sdk.values import Assignment, Checkpoint, TopicPartition

RESTARTS = 65_536
"""An epoch is generation x 65,536 + local restarts: a fence that grows with both."""


@dataclass(slots=True, eq=False)
class Owned:
    """One partition that is, or until a moment ago was, ours."""

    ledger: Ledger
    generation: int | None
    assignment: Assignment
    """The ledger's, when it came: that of a ledger that goes on is replaced."""
    released: bool = False


class Ownership:
    """The partitions of one consumer."""

    def __init__(self) -> None:
        self._owned: dict[TopicPartition, Owned] = {}
        self._by_assignment: dict[Assignment, Owned] = {}
        self._epochs: dict[TopicPartition, int] = {}
        """The last of each partition that ever was ours."""
        self.released = 0
        """How many partitions were revoked, and are neither ours again nor somebody else's yet."""

    def comes_back(self, tp: TopicPartition, generation: int | None, committed: Checkpoint | None) -> LogBook | None:
        """The ledger to go on with, if nobody else can have touched the partition since it was released.

        It must come back in the directly following generation, or in the same (Kafka answers a follower that joins
        again, and finds nothing changed, with the generation it has), and the broker must have what we wrote last:
        otherwise somebody else owned it meanwhile, or an operator moved the group. That order wins, also if it was to
        delete the position.
        """
        ledger = self._unbroken(tp, generation)
        return ledger if ledger is not None and ledger.on_broker.may_be(committed) else None

    def moved(self, tp: TopicPartition, generation: int | None, committed: Checkpoint | None) -> Checkpoint | None:
        """What we wrote last of a partition that comes back and has another committed position; None if none does."""
        ledger = self._unbroken(tp, generation)
        return ledger.written if ledger is not None and not ledger.on_broker.may_be(committed) else None

    def _unbroken(self, tp: TopicPartition, generation: int | None) -> LogBook | None:
        owned = self._owned.get(tp)
        if owned is None or not owned.released or generation is None or owned.generation is None:
            return None

        ledger = owned.ledger
        return ledger if isinstance(ledger, LogBook) and generation - owned.generation in (0, 1) else None

    def assign(self, tp: TopicPartition, generation: int | None, ledger: Ledger) -> None:
        """The partition is ours, with this ledger."""
        self.forget(tp)
        self._owned[tp] = owned = Owned(ledger, generation, ledger.assignment)
        self._by_assignment[ledger.assignment] = owned
        if ledger.assignment.epoch is not None:
            self._epochs[tp] = ledger.assignment.epoch

    def restart(self, tp: TopicPartition, ledger: Ledger) -> None:
        """A seek: the same owner starts over with a new ledger."""
        self.assign(tp, self._owned[tp].generation, ledger)

    def release(self, assignment: Assignment) -> Ledger | None:
        """Revoked: not ours any more unless it comes back."""
        owned = self._by_assignment.get(assignment)
        if owned is None:
            return None

        self.released += not owned.released
        owned.released = True
        return owned.ledger

    def forget(self, tp: TopicPartition) -> Ledger | None:
        """Lost for good."""
        owned = self._owned.pop(tp, None)
        if owned is None:
            return None

        self.released -= owned.released
        self._by_assignment.pop(owned.assignment, None)
        return owned.ledger

    def epoch(self, tp: TopicPartition, generation: int | None) -> int | None:
        """The fence of an assignment that is about to be made: above all that were made of the partition before.

        Raises:
            ConsumerStateError: it would not be below that of the next owner, who counts from the next generation on.
        """
        if generation is None:
            return None

        # A partition that was lost may come back in the same generation, as a restart stays in it. Generations that
        # begin anew, because the group was deleted, are below what is remembered here.
        last = self._epochs.get(tp, -1)
        if last == (generation + 1) * RESTARTS - 1:
            raise ConsumerStateError(
                f"{tp} was moved {RESTARTS - 1} times since it came to this consumer: the fence of one more seek would "
                "be as high as that of the partition's next owner. Leave this consumer and enter another one"
            )

        return max(generation * RESTARTS, last + 1)

    def generation(self, tp: TopicPartition) -> int | None:
        """The driver's generation under which the partition came to us."""
        return self._owned[tp].generation

    def ledger_of(self, assignment: Assignment) -> Ledger | None:
        """The ledger of an assignment that is ours right now; None for one that was released, lost or restarted."""
        owned = self._by_assignment.get(assignment)
        return owned.ledger if owned is not None and not owned.released else None

    def get(self, tp: TopicPartition) -> Ledger | None:
        """The ledger of a partition that is ours right now."""
        owned = self._owned.get(tp)
        return owned.ledger if owned is not None and not owned.released else None

    def known(self, assignment: Assignment) -> Ledger | None:
        """The ledger of an assignment, released ones included."""
        owned = self._by_assignment.get(assignment)
        return owned.ledger if owned is not None else None

    def all(self) -> list[Ledger]:
        """The ledgers of all partitions, released ones included."""
        return [owned.ledger for owned in self._owned.values()]

    def current(self) -> list[Ledger]:
        """The ledgers of the partitions that are ours right now, in the order they came."""
        return [owned.ledger for owned in self._owned.values() if not owned.released]
