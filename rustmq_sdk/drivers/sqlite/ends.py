"""Where partitions ended at our last append, so that the next one need not ask the file."""

from __future__ import annotations

from typing import NamedTuple

from rustmq_sdk.drivers.sqlite.remembered_appends import RememberedAppends
from rustmq_sdk.drivers.sqlite.topics import PartitionRow

ENDS = 1000
"""Partitions whose ends are remembered at most."""


class Stale(Exception):
    """What is remembered of a partition is not what is in the file any more, or may not be."""


class End(NamedTuple):
    """A partition's row, and what is known of its producers."""

    partition: PartitionRow
    appends: RememberedAppends


class Ends:
    """The ends of partitions as this connection left them.

    They save two queries an append, a third of what storing took without the COMMIT. Only what is plain to see is done
    from memory: messages never seen before, after the last one. The statement that moves an end names the end it
    expects. Where another process has appended, or the topic of that name is another one by now, it finds no row,
    :class:`Stale` is raised, and all is done again from what is in the file. A producer's appends need no such look:
    they cannot grow without the partition's end.
    """

    def __init__(self) -> None:
        self._ends: dict[tuple[str, int], End] = {}

    def recall(self, topic: str, number: int) -> End | None:
        """The end of a partition; None if it has to be looked up."""
        return self._ends.get((topic, number))

    def note(self, topic: str, number: int, end: End) -> None:
        """Remembers an end that becomes true when the transaction is committed; if it is not, :meth:`forget`."""
        if len(self._ends) >= ENDS and (topic, number) not in self._ends:
            self._ends.clear()

        self._ends[topic, number] = end

    def forget(self) -> None:
        """Everything: a transaction was rolled back, or nobody knows what became of its COMMIT."""
        self._ends.clear()
