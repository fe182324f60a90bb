"""Membership of a group: aiokafka's rebalances, as the runtime is told of them.

aiokafka knows eager rebalances only: each takes everything away and gives it back, and positions go back to the
committed offsets. So what is ours is kept in :class:`Holdings`, and each partition is sought to where the listener
says.

Both callbacks run in aiokafka's coordination task, one after the other; heartbeats go on during the first. What they
raise it would only log, so nothing escapes: fetches raise it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.abc import ConsumerRebalanceListener

from rustmq_sdk.drivers.kafka.assigning import Assigning
from rustmq_sdk.drivers.kafka.holdings import Holdings
from rustmq_sdk.slots import AssignmentListener
from rustmq_sdk.values import TopicPartition

NO_GENERATION = -1
"""aiokafka's generation after the group has expired us, and before it has joined."""


class Commits(Protocol):
    """What a rebalance has to know of commits under way."""

    async def give_up(self) -> None:
        """None is sent from now on that was begun before."""
        ...


class GroupMembership(Assigning, ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types for us to see
    """Told by aiokafka, tells the listener.

    Args:
        commits: under way.
        budget: seconds that handlers may need when partitions move.
    """

    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        listener: AssignmentListener,
        holdings: Holdings,
        commits: Commits,
        *,
        budget: float,
        interrupt: Callable[[], None],
    ) -> None:
        super().__init__(consumer, listener, holdings, interrupt=interrupt)
        self._commits = commits
        self._budget = budget

    @property
    def generation(self) -> int:
        """aiokafka's, of this moment."""
        return int(self._consumer._coordinator.generation)

    async def on_partitions_revoked(self, revoked: Collection[KafkaPartition]) -> None:
        """Before each rebalance, and when the group has expired us."""
        try:
            await self._revoke()
        except Exception as error:
            self._fail(error)
        finally:
            self._holdings.release()
            # One that is being tried again would be sent under the next generation, and could move the position of
            # whoever owns the partition then.
            await self._commits.give_up()

    async def _revoke(self) -> None:
        generation = self.generation
        leaving = self._holdings.revoke()
        self._interrupt()
        if not leaving:
            return

        if generation != self._holdings.generation:
            # Expired: others may be reading them already.
            self._holdings.drop(leaving)
            await self._listener.lost(leaving, reason="expired")
            return

        await self._listener.revoking(leaving, self._budget)

    async def on_partitions_assigned(self, assigned: Collection[KafkaPartition]) -> None:
        """After each rebalance; delivery begins when this is over."""
        try:
            await self._assign(sorted(assigned))
        except Exception as error:
            if self._fail(error):
                # Not here: until this returns there are no heartbeats, and it may be somebody else's turn.
                await self._pause()
                self._consumer._coordinator.request_rejoin()
        finally:
            self._interrupt()

    async def _assign(self, assigned: Collection[KafkaPartition]) -> None:
        generation = self.generation
        if generation == NO_GENERATION:
            return  # expired since: aiokafka joins again, and calls again

        ours = {TopicPartition(partition.topic, partition.partition): partition for partition in assigned}
        gone = [each for each in self._holdings.released if each.tp not in ours]
        if gone:
            self._holdings.drop(gone)
            deleted = any(not self._consumer.partitions_for_topic(each.tp.topic) for each in gone)
            await self._listener.lost(gone, reason="topics_changed" if deleted else "moved")

        starts = await self._listener.assigned(list(ours), generation)
        for partition, offset in self._holdings.take(starts, generation).items():
            self._consumer.seek(partition, offset)

        self._succeed()
