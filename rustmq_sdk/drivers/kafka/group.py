"""Membership of a group: aiokafka's rebalances, as the runtime is told of them.

aiokafka knows eager rebalances only: each takes everything away and gives it back, and positions go back to the
committed offsets. So what is ours is kept in :class:`Holdings`, and each partition is sought to where the listener
says.

Both callbacks run in aiokafka's coordination task, one after the other. Heartbeats go on meanwhile: whoever is told of
partitions asks brokers where they begin, which may take longer than a session. What the callbacks raise it would only
log, so nothing escapes: fetches raise it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Protocol

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.abc import ConsumerRebalanceListener

from rustmq_sdk.drivers.kafka.assigning import AGAIN_SECONDS, Assigning, said
from rustmq_sdk.drivers.kafka.holdings import Holdings
from rustmq_sdk.errors import TransientDriverError
from rustmq_sdk.slots import AssignmentListener
from rustmq_sdk.values import TopicPartition

NO_GENERATION = -1
"""aiokafka's generation after the group has expired us, and before it has joined."""
SLOW = 10.0
"""Seconds without an answer to where partitions begin that are worth saying: until then none of them is read."""


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
        # One call to the listener at a time.
        self._turn = asyncio.Lock()
        self._later: asyncio.Task[None] | None = None
        # What the listener is being told of, and since when.
        self._taking: tuple[Collection[KafkaPartition], float] | None = None

    @property
    def generation(self) -> int:
        """aiokafka's, of this moment."""
        return int(self._consumer._coordinator.generation)

    def check(self) -> None:
        """Raises what has failed, also if it is that nobody answers."""
        super().check()
        if self._taking is None:
            return

        partitions, since = self._taking
        silent = _now() - since
        if silent > SLOW:
            names = ", ".join(f"{topic}[{number}]" for topic, number in partitions)
            raise TransientDriverError(
                f"no answer for {silent:.0f} s to where these begin: {names}. Look whether the brokers that lead them "
                "run",
                slot="source",
                operation="assign",
            )

    async def on_partitions_revoked(self, revoked: Collection[KafkaPartition]) -> None:
        """Before each rebalance, and when the group has expired us."""
        try:
            await self._give_up_later()
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
        # aiokafka begins with that when this has returned.
        self._consumer._coordinator._start_heartbeat_task()
        try:
            await self._assign(sorted(assigned))
        except Exception as error:
            if self._fail(error):
                # Not made again here: it may be somebody else's turn.
                await self._pause()
                self._consumer._coordinator.request_rejoin()
        finally:
            self._interrupt()

    async def close(self) -> None:
        """Nothing is taken any more."""
        if self._later is not None:
            self._later.cancel()
            await asyncio.wait([self._later])

    async def _assign(self, assigned: Collection[KafkaPartition]) -> None:
        generation = self.generation
        if generation == NO_GENERATION:
            return  # expired since: aiokafka joins again, and calls again

        ours = [TopicPartition(partition.topic, partition.partition) for partition in assigned]
        await self._let_go(set(ours))
        # Of what comes back nobody has to ask where it goes on.
        back = {each.tp for each in self._holdings.released}
        fresh = [partition for tp, partition in zip(ours, assigned, strict=True) if tp not in back]
        later = await self._without_leader(fresh)
        self.leaderless = later
        led = [partition for partition in assigned if partition not in later]
        self._taking = led, _now()
        try:
            taken = await self._take(led, generation)
        finally:
            self._taking = None

        if taken:
            self._succeed()
            if later:
                self._later = asyncio.create_task(self._take_later(generation), name="rustmq-kafka-leaderless")

    async def _let_go(self, ours: Collection[TopicPartition]) -> None:
        """What was given up and has not come back is somebody else's."""
        gone = [each for each in self._holdings.released if each.tp not in ours]
        if gone:
            self._holdings.drop(gone)
            deleted = any(not self._consumer.partitions_for_topic(each.tp.topic) for each in gone)
            await self._listener.lost(gone, reason="topics_changed" if deleted else "moved")

    async def _take(self, partitions: Collection[KafkaPartition], generation: int) -> bool:
        """Answers whether they are ours: the group may have expired us while the listener asked where to begin."""
        names = [TopicPartition(partition.topic, partition.partition) for partition in partitions]
        starts = await self._listener.assigned(names, generation)
        if self.generation != generation:
            self._holdings.drop(self._holdings.released)
            await self._listener.lost(list(starts), reason="expired")
            return False

        for partition, offset in self._holdings.take(starts, generation).items():
            self._consumer.seek(partition, offset)

        return True

    async def _take_later(self, generation: int) -> None:
        """Until all have a leader, or the next rebalance."""
        while self.leaderless and self.generation == generation:
            await asyncio.sleep(AGAIN_SECONDS)
            try:
                await self._take_led(generation)
            except Exception as error:
                # What may pass holds up these alone: they are still waited for.
                if not isinstance(said(error), TransientDriverError):
                    self._fail(error)
                    return

    async def _take_led(self, generation: int) -> None:
        waiting = await self._without_leader(self.leaderless)
        led = [partition for partition in self.leaderless if partition not in waiting]
        if not led:
            return

        async with self._turn:
            await self._take(led, generation)

        self.leaderless = waiting
        self._interrupt()

    async def _give_up_later(self) -> None:
        """Waits for the listener, if it is being told of some."""
        later, self._later = self._later, None
        if later is None:
            return

        async with self._turn:
            later.cancel()

        await asyncio.wait([later])
        self.leaderless = ()


def _now() -> float:
    return asyncio.get_running_loop().time()
