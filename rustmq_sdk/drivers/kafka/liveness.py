"""Noticing that nobody coordinates the group: aiokafka looks for one for ever, and an idle consumer looks healthy."""

from __future__ import annotations

from collections.abc import Callable

from aiokafka import AIOKafkaConsumer
from aiokafka.consumer.group_coordinator import GroupCoordinator

from rustmq_sdk.errors import TransientDriverError


class CoordinatorWatch:
    """Complains once no coordinator is known, or it answers no heartbeat, for as long as a session lasts.

    A half-open connection takes heartbeats and answers none. aiokafka gives it up when the request is overdue, which is
    longer than a session: the group has expired us by then.

    Args:
        patience: that long, in seconds.
        clock: seconds.
    """

    def __init__(self, consumer: AIOKafkaConsumer, *, patience: float, clock: Callable[[], float]) -> None:
        self._consumer = consumer
        self._patience = patience
        self._clock = clock
        self._unknown_since: float | None = None
        self._heard = clock()
        coordinator = consumer._coordinator
        if isinstance(coordinator, GroupCoordinator):
            self._beat = coordinator._do_heartbeat
            coordinator._do_heartbeat = self._listen

    async def _listen(self) -> bool:
        heard = bool(await self._beat())
        if heard:
            self._heard = self._clock()

        return heard

    def check(self) -> None:
        """Raises ``TransientDriverError``."""
        now, coordinator = self._clock(), self._consumer._coordinator
        beating = getattr(coordinator, "_heartbeat_task", None)
        if beating is None or beating.done():
            # A rebalance: its JoinGroup stands for the heartbeats.
            self._heard = now

        if coordinator.coordinator_id is not None:
            self._unknown_since = None
            self._complain(now - self._heard, "the coordinator has not answered a heartbeat")
            return

        if self._unknown_since is None:
            self._unknown_since = now

        self._complain(now - self._unknown_since, "no broker says that it coordinates the group")

    def _complain(self, silent: float, what: str) -> None:
        if silent > self._patience:
            raise TransientDriverError(
                f"{what} for {silent:.0f} s (group {self._consumer._group_id!r}). Look whether the brokers are up and "
                "reachable",
                slot="source",
                operation="fetch",
            )
