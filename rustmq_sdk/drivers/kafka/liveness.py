"""Noticing that nobody coordinates the group: aiokafka looks for one for ever, and an idle consumer looks healthy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiokafka import AIOKafkaConsumer
from aiokafka.consumer.group_coordinator import GroupCoordinator

from rustmq_sdk.errors import TransientDriverError

TICK = 0.5
"""Seconds between two looks whether the loop still turns."""


class CoordinatorWatch:
    """Complains once no coordinator is known, or it answers no heartbeat, for as long as a session lasts.

    A half-open connection takes heartbeats and answers none. aiokafka gives it up when the request is overdue, which is
    longer than a session: the group has expired us by then.

    A handler that blocks the event loop blocks heartbeats too. Then it is no broker's fault, and the words are others.

    Args:
        patience: that long, in seconds.
        clock: seconds.
    """

    def __init__(self, consumer: AIOKafkaConsumer, *, patience: float, clock: Callable[[], float]) -> None:
        self._consumer = consumer
        self._patience = patience
        self._clock = clock
        self._unknown_since: float | None = None
        self._heard = self._turned = clock()
        self._blocked = 0.0
        coordinator = consumer._coordinator
        if isinstance(coordinator, GroupCoordinator):
            self._beat = coordinator._do_heartbeat
            coordinator._do_heartbeat = self._listen

    async def run(self) -> None:
        """Until cancelled: notices when the event loop stands still."""
        while True:
            await asyncio.sleep(TICK)
            self._notice()
            self._turned = self._clock()

    async def _listen(self) -> bool:
        heard = bool(await self._beat())
        if heard:
            self._hear()

        return heard

    def _hear(self) -> None:
        # Noticed first: what was before the answer has done no harm.
        self._notice()
        self._heard, self._blocked = self._clock(), 0.0

    def _notice(self) -> None:
        """Also called by whoever needs to know: after a block it may run before the next look."""
        now = self._clock()
        if now - self._turned > 2 * TICK:
            self._blocked += now - self._turned
            self._turned = now

    def check(self) -> None:
        """Raises ``TransientDriverError``."""
        self._notice()
        now, coordinator = self._clock(), self._consumer._coordinator
        beating = getattr(coordinator, "_heartbeat_task", None)
        if beating is None or beating.done():
            # A rebalance: its JoinGroup stands for the heartbeats.
            self._hear()

        if coordinator.coordinator_id is not None:
            self._unknown_since = None
            self._complain(now - self._heard, "the coordinator has not answered a heartbeat")
            return

        if self._unknown_since is None:
            self._unknown_since = now

        self._complain(now - self._unknown_since, "no broker says that it coordinates the group")

    def _complain(self, silent: float, what: str) -> None:
        if silent <= self._patience:
            return

        if silent - self._blocked <= self._patience:
            raise TransientDriverError(
                f"the event loop was blocked for {self._blocked:.0f} s, so the group {self._consumer._group_id!r} "
                "heard no heartbeat, and others may have the partitions. Make a handler that blocks a plain function, "
                "which runs in a thread, or add thread=true to the URL",
                slot="source",
                operation="fetch",
            )

        raise TransientDriverError(
            f"{what} for {silent:.0f} s (group {self._consumer._group_id!r}). Look whether the brokers are up and "
            "reachable",
            slot="source",
            operation="fetch",
        )
