"""Noticing that a group has no coordinator: aiokafka looks for one for ever, and an idle consumer looks healthy."""

from __future__ import annotations

from collections.abc import Callable

from aiokafka import AIOKafkaConsumer

from rustmq_sdk.errors import TransientDriverError


class CoordinatorWatch:
    """Complains once the coordinator is unknown for as long as a session lasts.

    Args:
        patience: that long, in seconds.
        clock: seconds.
    """

    def __init__(self, consumer: AIOKafkaConsumer, *, patience: float, clock: Callable[[], float]) -> None:
        self._consumer = consumer
        self._patience = patience
        self._clock = clock
        self._unknown_since: float | None = None

    def check(self) -> None:
        """Raises ``TransientDriverError``."""
        now = self._clock()
        if self._consumer._coordinator.coordinator_id is not None:
            self._unknown_since = None
            return

        if self._unknown_since is None:
            self._unknown_since = now

        silent = now - self._unknown_since
        if silent > self._patience:
            raise TransientDriverError(
                f"no broker says for {silent:.0f} s that it coordinates the group "
                f"{self._consumer._group_id!r}. Look whether the brokers are up and reachable",
                slot="source",
                operation="fetch",
            )
