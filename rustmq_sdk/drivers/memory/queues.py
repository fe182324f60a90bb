"""What one group has still to do of one topic: leases, redeliveries, attempts. Synchronous; time comes in."""

from __future__ import annotations

import enum
from collections.abc import Collection, Sequence
from heapq import heappop, heappush
from itertools import count
from math import inf
from operator import itemgetter
from typing import NamedTuple

from rustmq_sdk.drivers.memory.log import Cut, PartitionLog, Record
from rustmq_sdk.slots import SettleOutcome
from rustmq_sdk.values import Gone, size_of


class LeaseState(enum.Enum):
    """How a lease stands."""

    HELD = "held"
    SETTLED = "settled"
    LOST = "lost"


class Lease:
    """One delivery of one message; opaque to everybody else, who gets it as a receipt's token.

    It remembers how it ended as long as somebody holds the receipt, so that a settlement whose answer was lost can be
    repeated.
    """

    __slots__ = ("attempt", "deadline", "queue", "record", "state")

    def __init__(self, queue: Queue, record: Record, attempt: int, deadline: float) -> None:
        self.queue = queue
        self.record = record
        self.attempt = attempt
        self.deadline = deadline
        self.state = LeaseState.HELD


class Due(NamedTuple):
    """A message that comes again, in the order of its time."""

    at: float
    order: int
    record: Record
    attempts: int


class Taken(NamedTuple):
    """New leases, the bytes of their messages, and what retention took before anybody had it."""

    leases: Sequence[Lease]
    size: int
    gone: Sequence[Gone]


class Queue:
    """A topic as one group sees it: every message goes to one member at a time, until one of them settles it."""

    def __init__(self, log: PartitionLog) -> None:
        self.log = log
        self._position = 0
        self._due: list[Due] = []
        self._leases: list[tuple[float, int, Lease]] = []
        self._order = count()

    def take(self, now: float, lease: float, max_messages: int, max_bytes: int, *, at_least_one: bool) -> Taken:
        """Leases messages until ``now + lease``, redeliveries first; ``at_least_one`` lets an oversized one through."""
        self._expire(now)
        deadline = now + lease
        leases: list[Lease] = []
        size = 0
        while self._due and self._due[0].at <= now:
            fits = size + size_of(*self._due[0].record[:3]) <= max_bytes or (at_least_one and not leases)
            if len(leases) >= max_messages or not fits:
                return self._lease(leases, size, ())

            due = heappop(self._due)
            size += size_of(*due.record[:3])
            leases.append(Lease(self, due.record, due.attempts + 1, deadline))

        at_least_one = at_least_one and not leases
        cut = self.log.cut(self._position, max_messages - len(leases), max_bytes - size, at_least_one=at_least_one)
        self._position = cut.next_offset
        leases.extend(Lease(self, record, 1, deadline) for record in _undecoded(cut))
        return self._lease(leases, size + cut.size, cut.gone)

    def settle(self, lease: Lease, now: float) -> SettleOutcome:
        """Ends a lease for good; LOST if it ended otherwise before. Repeating it changes nothing."""
        if lease.state is LeaseState.HELD:
            lease.state = LeaseState.LOST if lease.deadline <= now else LeaseState.SETTLED
            if lease.state is LeaseState.LOST:
                self._again(lease, now)

        return SettleOutcome.SETTLED if lease.state is LeaseState.SETTLED else SettleOutcome.LOST

    def give_back(self, lease: Lease, now: float, delay: float, *, counted: bool) -> SettleOutcome:
        """Ends a lease so that the message comes again after ``delay`` seconds."""
        was_held = lease.state is LeaseState.HELD
        outcome = self.settle(lease, now)
        if was_held and outcome is SettleOutcome.SETTLED:
            self._again(lease, now + delay, counted=counted)
            self.log.announce()

        return outcome

    def extend(self, lease: Lease, now: float, seconds: float) -> bool:
        """Renews a lease to end at ``now + seconds``; False if it is lost, or settled."""
        if lease.state is LeaseState.HELD and lease.deadline > now:
            lease.deadline = now + seconds
            return True

        return False

    def end_leases(self, payloads: Collection[bytes | None] | None, *, again: bool) -> None:
        """They run out now; see :meth:`MemoryBroker.end_leases`."""
        for _, _, lease in self._leases:
            if lease.state is LeaseState.HELD and (payloads is None or lease.record[0] in payloads):
                lease.deadline = -inf
                if not again:
                    lease.state = LeaseState.LOST

    def next_change(self) -> float | None:
        """When something becomes available by itself; may be too early, never too late."""
        times = [heap[0][0] for heap in (self._due, self._leases) if heap]
        return min(times, default=None)

    def shift(self, seconds: float) -> None:
        """Moves all times, when another loop with another origin of time takes over."""
        self._due = [due._replace(at=due.at + seconds) for due in self._due]
        for _, _, lease in self._leases:
            lease.deadline += seconds

        self._leases = [(deadline + seconds, order, lease) for deadline, order, lease in self._leases]

    def _lease(self, leases: list[Lease], size: int, gone: Sequence[Gone]) -> Taken:
        for lease in leases:
            heappush(self._leases, (lease.deadline, next(self._order), lease))

        return Taken(leases, size, gone)

    def _expire(self, now: float) -> None:
        while self._leases and self._leases[0][0] <= now:
            _, order, lease = heappop(self._leases)
            if lease.state is not LeaseState.HELD:
                continue

            if lease.deadline > now:  # extended since
                heappush(self._leases, (lease.deadline, order, lease))
                continue

            lease.state = LeaseState.LOST
            self._again(lease, now)

    def _again(self, lease: Lease, at: float, *, counted: bool = True) -> None:
        attempts = lease.attempt if counted else lease.attempt - 1
        heappush(self._due, Due(at, next(self._order), lease.record, attempts))


def _undecoded(cut: Cut) -> Sequence[Record]:
    """All records of a cut. A queue hands out bytes as they are, so to a queue none is broken."""
    if not cut.broken:
        return cut.records

    raw: list[Record] = [(broken.raw, None, (), broken.offset, 0) for broken in cut.broken]
    return sorted([*cut.records, *raw], key=itemgetter(3))
