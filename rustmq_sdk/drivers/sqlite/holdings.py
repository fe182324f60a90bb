"""The partitions a subscription has, found by assignment while the runtime and the membership change them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from rustmq_sdk.drivers.sqlite.cursor import Cursor
from rustmq_sdk.values import Assignment, TopicPartition


class Holding:
    """One partition of ours.

    Attributes:
        partition: its id.
        epoch: of our claim; 0 without a group.
        cursor: reads for the assignment that stands for the partition now.
        served: when it was last part of a fetch's answer, in fetches.
        last_read: when the file was last asked for it, in reads.
        flowing: whether it may be fetched; not when it is being revoked, or is somebody else's already.
        revoked: whether the listener was told to give it up.
    """

    def __init__(self, partition: int, epoch: int, cursor: Cursor) -> None:
        self.partition = partition
        self.epoch = epoch
        self.cursor = cursor
        self.served = 0
        self.last_read = 0
        self.flowing = True
        self.revoked = False

    @property
    def assignment(self) -> Assignment:
        """What the runtime calls it now; a seek changes that."""
        return self.cursor.assignment


class Holdings:
    """All of them. ``check_crcs``: verify the checksums of what is read."""

    def __init__(self, *, check_crcs: bool) -> None:
        self._by_assignment: dict[Assignment, Holding] = {}
        self._check_crcs = check_crcs

    def __iter__(self) -> Iterator[Holding]:
        return iter(tuple(self._by_assignment.values()))

    def get(self, assignment: Assignment) -> Holding | None:
        """What the assignment stands for; None if it is not ours any more."""
        return self._by_assignment.get(assignment)

    def of(self, assignments: Iterable[Assignment]) -> Iterator[Holding]:
        """What they stand for; nothing for those that are not ours any more. Asked for all of them at every fetch."""
        return filter(None, map(self._by_assignment.get, assignments))

    def take(
        self, starts: Mapping[Assignment, int | None], partitions: Mapping[TopicPartition, int], epoch: int
    ) -> None:
        """Partitions that are ours from now on: what the listener answered, and their ids."""
        for assignment, offset in starts.items():
            partition = partitions[assignment.tp]
            self._by_assignment[assignment] = Holding(
                partition, epoch, self._cursor(assignment, partition, offset or 0)
            )

    def seek(self, old: Assignment, new: Assignment, offset: int) -> None:
        """``new`` stands for the partition from now on, and ``old`` for nothing. Does nothing if it is not ours."""
        holding = self._by_assignment.pop(old, None)
        if holding is not None:
            holding.cursor = self._cursor(new, holding.partition, offset)
            self._by_assignment[new] = holding

    def drop(self, holdings: Collection[Holding]) -> None:
        """They are not ours any more."""
        for holding in holdings:
            self._by_assignment.pop(holding.assignment, None)

    def _cursor(self, assignment: Assignment, partition: int, offset: int) -> Cursor:
        return Cursor(assignment, partition, offset, check_crcs=self._check_crcs)
