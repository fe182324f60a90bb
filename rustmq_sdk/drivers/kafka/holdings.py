"""Which partitions are ours, and how far each was read."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from aiokafka import TopicPartition as KafkaPartition

from rustmq_sdk.values import Assignment


class Holdings:
    """The assignments between two rebalances.

    An assignment is *held* while its records may be delivered and its commits are sent; *revoking* while handlers
    finish: it can still be committed; and *released* from then until the rebalance says whether it comes back: its
    commits have to wait.

    Attributes:
        generation: under which the held ones were assigned; None without a group.
    """

    def __init__(self) -> None:
        self.generation: int | None = None
        self._held: dict[Assignment, KafkaPartition] = {}
        self._revoking: dict[Assignment, KafkaPartition] = {}
        self._released: set[Assignment] = set()
        self._positions: dict[Assignment, int] = {}
        # Seeks of assignments that the listener has named and we have not taken yet: between two threads that happens.
        self._early: dict[Assignment, tuple[Assignment, int]] = {}

    @property
    def held(self) -> Collection[Assignment]:
        """Those whose records may be delivered."""
        return self._held.keys()

    @property
    def released(self) -> Collection[Assignment]:
        """Those whose fate is open."""
        return set(self._released)

    def partition(self, assignment: Assignment) -> KafkaPartition | None:
        """Where its records come from; None unless it is held."""
        return self._held.get(assignment)

    def wanted(self, assignments: Iterable[Assignment]) -> Iterator[tuple[Assignment, KafkaPartition]]:
        """Those of the assignments that are held, with their partitions."""
        for assignment in assignments:
            partition = self._held.get(assignment)
            if partition is not None:
                yield assignment, partition

    def may_commit(self, assignment: Assignment) -> bool:
        """Whether a commit for it would be ours to make."""
        return assignment in self._held or assignment in self._revoking

    def take(self, starts: Mapping[Assignment, int | None], generation: int | None) -> dict[KafkaPartition, int]:
        """These are ours now; answers from where each partition is to be read."""
        self.generation = generation
        self._released.clear()
        taken: dict[KafkaPartition, int] = {}
        for assignment, start in starts.items():
            assert start is not None, "logs have offsets"
            current, offset = assignment, start
            while current in self._early:
                current, offset = self._early.pop(current)

            partition = self._held[current] = KafkaPartition(assignment.tp.topic, assignment.tp.partition)
            self._positions[current] = taken[partition] = offset

        self._early.clear()
        return taken

    def revoke(self) -> list[Assignment]:
        """All that are held stop being delivered."""
        self._revoking, self._held = self._held, {}
        return list(self._revoking)

    def release(self) -> None:
        """The listener has done what it could about those that are being revoked."""
        self._released |= self._revoking.keys()
        self._revoking = {}

    def drop(self, assignments: Collection[Assignment]) -> None:
        """They are somebody else's."""
        for assignment in assignments:
            self._held.pop(assignment, None)
            self._revoking.pop(assignment, None)
            self._positions.pop(assignment, None)
            self._released.discard(assignment)

    def rename(self, old: Assignment, new: Assignment, offset: int) -> KafkaPartition | None:
        """A seek; answers the partition where it is to be read from another place now."""
        for table in (self._held, self._revoking):
            if old in table:
                partition = table[new] = table.pop(old)
                self._positions.pop(old, None)
                self._positions[new] = offset
                return partition if table is self._held else None

        if old in self._released:
            self._released.remove(old)
            self._released.add(new)
            self._positions[new] = offset
        else:
            self._early[old] = (new, offset)

        return None

    def position(self, assignment: Assignment) -> int:
        """The next offset to read."""
        return self._positions[assignment]

    def move(self, assignment: Assignment, position: int) -> None:
        """It was read up to there."""
        self._positions[assignment] = position
