"""What the two ways of getting partitions have in common."""

from __future__ import annotations

from collections.abc import Callable

from aiokafka import AIOKafkaConsumer

from rustmq_sdk.drivers.kafka.holdings import Holdings
from rustmq_sdk.slots import AssignmentListener


class Assigning:
    """Works in a task of its own, or of aiokafka's, so the next fetch raises what fails there.

    Args:
        consumer: gets the partitions.
        listener: is told.
        holdings: what is ours.
        interrupt: has a waiting fetch look again.
    """

    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        listener: AssignmentListener,
        holdings: Holdings,
        *,
        interrupt: Callable[[], None],
    ) -> None:
        self._consumer = consumer
        self._listener = listener
        self._holdings = holdings
        self._interrupt = interrupt
        self._failure: Exception | None = None

    def check(self) -> None:
        """Raises the first thing that has failed."""
        if self._failure is not None:
            raise self._failure

    def _fail(self, error: Exception) -> None:
        self._failure = self._failure or error
        self._interrupt()
