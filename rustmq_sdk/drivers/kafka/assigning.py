"""What the two ways of getting partitions have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.conn import CloseReason
from aiokafka.errors import KafkaError

from rustmq_sdk.drivers.kafka.failures import translate
from rustmq_sdk.drivers.kafka.holdings import Holdings
from rustmq_sdk.errors import TransientDriverError
from rustmq_sdk.slots import AssignmentListener

AGAIN_SECONDS = 1.0
"""Before an assignment that failed for a reason that may pass is made again. The runtime has tried for a minute."""

NO_LEADER = -1
"""What metadata say of a partition whose leader is down and has no successor."""


class Assigning:
    """Works in a task of its own, or of aiokafka's, so fetches raise what fails there.

    What may pass they raise until it has passed: the partitions are ours and nobody else gets them, so the assignment
    is made again. Anything else they raise for good, which ends the consumer.

    Args:
        consumer: gets the partitions.
        listener: is told.
        holdings: what is ours.
        interrupt: has a waiting fetch look again.

    Attributes:
        leaderless: partitions that are ours to read and wait for a broker that leads them.
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
        self.leaderless: Collection[KafkaPartition] = ()

    def check(self) -> None:
        """Raises what has failed."""
        if self._failure is not None:
            # Raised again and again: each time would add to the traceback.
            raise self._failure.with_traceback(None)

    def _fail(self, error: Exception) -> bool:
        """The answer is whether to try again."""
        if self._failure is None or isinstance(self._failure, TransientDriverError):
            self._failure = said(error)

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

    async def _without_leader(self, partitions: Collection[KafkaPartition]) -> Collection[KafkaPartition]:
        """Those that no broker leads, or one that cannot be reached.

        Nobody could say where these begin, and the others would wait for that: they are assigned all at once.
        """
        leaderless = await self._unreachable(partitions)
        if not leaderless:
            return ()

        # What is in memory may be old: leaders move, and the topic may be new.
        await self._consumer._client.force_metadata_update()
        return await self._unreachable(leaderless)

    async def _unreachable(self, partitions: Collection[KafkaPartition]) -> Collection[KafkaPartition]:
        client = self._consumer._client
        leaders = {partition: client.cluster.leader_for_partition(partition) for partition in partitions}
        nodes = [node for node in set(leaders.values()) if node is not None and node != NO_LEADER]
        # The connections that it is read from then.
        ready = dict(zip(nodes, await asyncio.gather(*map(client.ready, nodes)), strict=True))
        return [partition for partition, node in leaders.items() if not ready.get(node)]


def said(error: Exception) -> Exception:
    """The error to raise for it."""
    if not isinstance(error, KafkaError | TimeoutError):
        return error

    # A timeout says nothing: its text is empty.
    translated = translate(error, slot="source", operation="assign")
    translated.__cause__ = error
    return translated
