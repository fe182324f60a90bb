"""A live subscription to Kafka: its parts, and the slot they fill together. Lives on an asyncio loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence

from aiokafka import AIOKafkaConsumer
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import InvalidSessionTimeoutError, KafkaError

from rustmq_sdk.drivers.kafka.commits import OffsetCommits
from rustmq_sdk.drivers.kafka.failures import translate
from rustmq_sdk.drivers.kafka.gaps import Gaps
from rustmq_sdk.drivers.kafka.group import GroupMembership
from rustmq_sdk.drivers.kafka.holdings import Holdings
from rustmq_sdk.drivers.kafka.leaving import leave
from rustmq_sdk.drivers.kafka.liveness import CoordinatorWatch
from rustmq_sdk.drivers.kafka.manual import ManualAssignment
from rustmq_sdk.drivers.kafka.missing import MissingTopics
from rustmq_sdk.drivers.kafka.offsets import OffsetQueries
from rustmq_sdk.drivers.kafka.polling import Polling
from rustmq_sdk.drivers.kafka.quieting import said_by_us
from rustmq_sdk.drivers.kafka.rereading import Rereading
from rustmq_sdk.drivers.kafka.static_members import StaticMembership
from rustmq_sdk.drivers.kafka.timing import Timing
from rustmq_sdk.drivers.kafka.topics import Wanted
from rustmq_sdk.errors import Unsupported
from rustmq_sdk.slots import AssignmentListener, Fetched, LogSubscription
from rustmq_sdk.values import Assignment, Checkpoint, CommitOutcome, TopicPartition


class KafkaSubscription:
    """Fills :class:`rustmq_sdk.slots.LogSubscription`.

    Args:
        consumer: started, and subscribed to nothing yet.
        reader: makes a consumer without a group, to read single offsets again.
    """

    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        listener: AssignmentListener,
        wanted: Wanted,
        timing: Timing,
        *,
        group: str | None,
        reader: Callable[[], AIOKafkaConsumer],
    ) -> None:
        self._consumer = consumer
        self._wanted = wanted
        self._timing = timing
        self._group = group
        self._leaving = False
        self._holdings = Holdings()
        self._offsets = OffsetQueries(consumer, has_group=group is not None, deadline=timing.request)
        self._commits = OffsetCommits(consumer, self._holdings, self._generation)
        self._rereading = Rereading(reader, deadline=timing.request)
        self._gaps = Gaps(consumer, self._holdings, self._offsets)
        self._polling = Polling(consumer, self._holdings, check=self._check, gaps=self._gaps)
        self._missing = MissingTopics(consumer, wanted, self._holdings, lambda: self._membership.leaderless)
        if consumer._group_instance_id is not None and isinstance(consumer._coordinator, GroupCoordinator):
            StaticMembership(consumer, consumer._group_instance_id)

        self._watch = CoordinatorWatch(consumer, patience=timing.session, clock=asyncio.get_running_loop().time)
        interrupt = self._polling.interrupt
        self._membership: GroupMembership | ManualAssignment
        if group is not None and not wanted.partitions:
            self._membership = GroupMembership(
                consumer, listener, self._holdings, self._commits, budget=timing.budget, interrupt=interrupt
            )
        else:
            self._membership = ManualAssignment(consumer, listener, self._holdings, wanted, interrupt=interrupt)

    def begin(self) -> list[asyncio.Task[None]]:
        """Joins. What the listener is told comes later, from tasks; the answer is those that have to be ended."""
        tasks = [
            asyncio.create_task(self._missing.look(), name="rustmq-kafka-missing-topics"),
            asyncio.create_task(self._watch.run(), name="rustmq-kafka-liveness"),
        ]
        if isinstance(self._membership, ManualAssignment):
            tasks.append(asyncio.create_task(self._membership.run(), name="rustmq-kafka-assignment"))
        else:
            pattern = self._wanted.pattern
            topics = {"topics": self._wanted.names} if pattern is None else {"pattern": pattern.pattern}
            with said_by_us():
                self._consumer.subscribe(**topics, listener=self._membership)

        return tasks

    async def close(self, *, static: bool) -> None:
        """Leaves the group, quickly and in any case. Fetches may still be waiting, and find nothing from now on."""
        self._leaving = True
        try:
            if isinstance(self._membership, GroupMembership):
                await self._membership.close()

            await self._commits.give_up()
            await self._gaps.close()
            await self._rereading.close()
        finally:
            await leave(self._consumer, static=static)

    # The slot

    async def fetch(
        self, wanted: Collection[Assignment], *, max_messages: int, max_bytes: int, max_wait: float
    ) -> Sequence[Fetched]:
        try:
            return await self._polling.fetch(wanted, max_messages=max_messages, max_bytes=max_bytes, max_wait=max_wait)
        except InvalidSessionTimeoutError as error:
            raise self._timing.session_refused() from error
        except KafkaError as error:
            raise translate(error, slot="source", operation="fetch") from error

    def wake(self) -> None:
        self._polling.wake()

    @property
    def missing_topics(self) -> Mapping[str, str]:
        """Also partitions and patterns, and partitions without a leader.

        A topic is among them that was deleted since: else it is ``UnknownTopic``.
        """
        return self._missing.reasons

    async def commit(self, checkpoints: Mapping[Assignment, Checkpoint]) -> Mapping[Assignment, CommitOutcome]:
        if self._group is None:
            raise Unsupported("commit: without a group there is nothing to commit to. Give the consumer group=…")

        return await self._commits.send(checkpoints)

    async def committed(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, Checkpoint | None]:
        return await self._offsets.committed(partitions)

    async def start_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        return await self._offsets.start(partitions)

    async def end_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        return await self._offsets.end(partitions)

    async def offsets_at(
        self, partitions: Collection[TopicPartition], timestamp_ms: int
    ) -> Mapping[TopicPartition, int]:
        return await self._offsets.at_time(partitions, timestamp_ms)

    def seek(self, old: Assignment, new: Assignment, offset: int) -> None:
        partition = self._holdings.rename(old, new, offset)
        if partition is not None:
            self._consumer.seek(partition, offset)
            self._polling.interrupt()

    async def read(self, assignment: Assignment, offsets: Sequence[int]) -> Fetched:
        return await self._rereading.read(assignment, offsets)

    # Of the parts

    def _generation(self) -> int | None:
        return self._membership.generation if isinstance(self._membership, GroupMembership) else None

    def _check(self) -> None:
        if self._leaving:
            # aiokafka's tasks are ended, and would tell of that.
            return

        self._membership.check()
        # What aiokafka's tasks have met: refused authorisation, a member of another kind in the group.
        self._consumer._coordinator.check_errors()
        if self._group is not None:
            self._watch.check()


def _conforms(subscription: KafkaSubscription) -> LogSubscription:
    return subscription
