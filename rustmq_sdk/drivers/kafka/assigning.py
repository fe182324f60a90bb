"""What the two ways of getting partitions have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiokafka import AIOKafkaConsumer
from aiokafka.conn import CloseReason
from aiokafka.errors import KafkaError

from rustmq_sdk.drivers.kafka.failures import translate
from rustmq_sdk.drivers.kafka.holdings import Holdings
from rustmq_sdk.errors import TransientDriverError
from rustmq_sdk.slots import AssignmentListener

AGAIN_SECONDS = 1.0
"""Before an assignment that failed for a reason that may pass is made again. The runtime has tried for a minute."""


class Assigning:
    """Works in a task of its own, or of aiokafka's, so fetches raise what fails there.

    What may pass they raise until it has passed: the partitions are ours and nobody else gets them, so the assignment
    is made again. Anything else they raise for good, which ends the consumer.

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
        """Raises what has failed."""
        if self._failure is not None:
            # Raised again and again: each time would add to the traceback.
            raise self._failure.with_traceback(None)

    def _fail(self, error: Exception) -> bool:
        """The answer is whether to try again."""
        said: Exception = error
        if isinstance(error, KafkaError | TimeoutError):
            # A timeout says nothing: its text is empty.
            said = translate(error, slot="source", operation="assign")
            said.__cause__ = error

        if self._failure is None or isinstance(self._failure, TransientDriverError):
            self._failure = said

        self._interrupt()
        return isinstance(self._failure, TransientDriverError)

    async def _pause(self) -> None:
        """Before another try."""
        await asyncio.sleep(AGAIN_SECONDS)
        # aiokafka ends a connection when an answer that somebody waits for is overdue. Our questions are given up
        # before that, and the next one would go out on the same connection, be it half-open.
        for connection in list(self._consumer._client._conns.values()):
            if any(answer.cancelled() for _, _, answer in connection._requests):
                connection.close(reason=CloseReason.CONNECTION_TIMEOUT)

    def _succeed(self) -> None:
        """What had failed for a reason that may pass has passed."""
        if isinstance(self._failure, TransientDriverError):
            self._failure = None
