"""The memory broker as a queue: every message is leased and settled by itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager

import anyio
from anyio.lowlevel import checkpoint

from rustmq_sdk._bell import FetchBell
from rustmq_sdk.drivers.memory.broker import MemoryBroker
from rustmq_sdk.drivers.memory.groups import Claim, Group
from rustmq_sdk.drivers.memory.log import build, ringing
from rustmq_sdk.drivers.memory.membership import Membership, running
from rustmq_sdk.drivers.memory.queues import Lease, Queue, Taken
from rustmq_sdk.slots import (
    Ack,
    AssignmentListener,
    Capabilities,
    Fetched,
    Nack,
    Receipt,
    SettleOutcome,
    SourceRequest,
    Term,
)
from rustmq_sdk.values import Assignment


class MemoryQueueSource:
    """Fills :class:`~rustmq_sdk.slots.Source` for a queue."""

    def __init__(self, broker: MemoryBroker, request: SourceRequest, capabilities: Capabilities) -> None:
        self._broker = broker
        self._request = request
        self._capabilities = capabilities

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    @asynccontextmanager
    async def subscribe(self, listener: AssignmentListener) -> AsyncIterator[MemoryQueueSubscription]:
        with self._broker.private_group("queue") as group:
            subscription = MemoryQueueSubscription(self._broker, group, self._request, self._capabilities, listener)
            async with running(subscription.membership):
                yield subscription


class MemoryQueueSubscription:
    """Fills :class:`~rustmq_sdk.slots.QueueSubscription`."""

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
            fences=False,
            on_change=self._changed,
            on_assigned=self._start,
        )
        self._broker = broker
        self._request = request
        self._capabilities = capabilities
        self._bell = FetchBell()
        self._queues: dict[Assignment, Queue] = {}
        self._served: dict[Assignment, int] = {}
        self._turn = 0

    async def fetch(
        self, wanted: Collection[Assignment], *, max_messages: int, max_bytes: int, max_wait: float
    ) -> Sequence[Fetched]:
        deadline = anyio.current_time() + max_wait
        self._bell.rearm()
        pieces = self._pieces(wanted, max_messages, max_bytes)
        while not pieces and not self._bell.ended:
            now = anyio.current_time()
            if now >= deadline:
                break

            queues = [self._queues[assignment] for assignment in wanted if assignment in self._queues]
            # Deliveries come due and leases run out without anybody ringing. Without room that is of no interest.
            changes = [change for queue in queues if max_messages > 0 and (change := queue.next_change()) is not None]
            with ringing(self._bell, {queue.log for queue in queues}):
                rung = await self._bell.wait(min([deadline, *changes]) - now)

            pieces = self._pieces(wanted, max_messages, max_bytes)
            if rung:
                break

        self._bell.ended = False
        return pieces

    def wake(self) -> None:
        self._bell.end()

    @property
    def missing_topics(self) -> Mapping[str, str]:
        return self._broker.missing(self.membership.member.topics)

    async def settle(self, settlements: Sequence[Ack | Nack | Term]) -> Sequence[SettleOutcome]:
        await checkpoint()
        now = anyio.current_time()
        return [self._settle(settlement, now) for settlement in settlements]

    async def extend(self, receipts: Sequence[Receipt]) -> Sequence[Receipt]:
        await checkpoint()
        now = anyio.current_time()
        return [receipt for receipt in receipts if not self._extend(receipt, now)]

    def _pieces(self, wanted: Collection[Assignment], max_messages: int, max_bytes: int) -> list[Fetched]:
        if self.membership.failure is not None:
            raise self.membership.failure

        now = anyio.current_time()
        mine = [assignment for assignment in wanted if assignment in self._queues]
        pieces: list[Fetched] = []
        for assignment in sorted(mine, key=self._last_turn):
            if max_messages <= 0:
                break

            queue, lease = self._queues[assignment], self._request.lease
            taken = queue.take(now, lease, max_messages, max_bytes, at_least_one=not pieces)
            if not (taken.leases or taken.gone):
                continue

            self._turn += 1
            self._served[assignment] = self._turn
            max_messages -= len(taken.leases)
            max_bytes -= taken.size
            pieces.append(self._fetched(assignment, taken))

        return pieces

    def _fetched(self, assignment: Assignment, taken: Taken) -> Fetched:
        count = len(taken.leases)
        attempts = [lease.attempt for lease in taken.leases] if self._capabilities.counts_attempts else ()
        return Fetched(
            assignment,
            range(count),
            [lease.record for lease in taken.leases],
            build,
            next_offset=count,
            size=taken.size,
            gone=[gone._replace(tp=assignment.tp) for gone in taken.gone],
            receipts=[Receipt(f"{assignment.topic}:{lease.record[3]}", lease) for lease in taken.leases],
            attempts=attempts,
        )

    def _settle(self, settlement: Ack | Nack | Term, now: float) -> SettleOutcome:
        lease: Lease = settlement.receipt.token
        if not isinstance(settlement, Nack):
            return lease.queue.settle(lease, now)

        delay = settlement.delay if self._capabilities.delayed_nack else 0.0
        counted = settlement.counted or not self._capabilities.counts_attempts
        return lease.queue.give_back(lease, now, delay, counted=counted)

    def _extend(self, receipt: Receipt, now: float) -> bool:
        lease: Lease = receipt.token
        return lease.queue.extend(lease, now, self._request.lease)

    def _start(self, taken: Mapping[Assignment, Claim], _starts: Mapping[Assignment, int | None]) -> None:
        for assignment, claim in taken.items():
            if not claim.live:
                continue  # lost while assigned() was running, with its topic; lost() comes next

            self._queues[assignment] = self._broker.queue(self._request.group, assignment.topic)

    def _changed(self) -> None:
        held = self.membership.held
        self._queues = {assignment: queue for assignment, queue in self._queues.items() if assignment in held}
        self._served = {assignment: turn for assignment, turn in self._served.items() if assignment in held}
        self._bell.ring()

    def _last_turn(self, assignment: Assignment) -> int:
        return self._served.get(assignment, 0)
