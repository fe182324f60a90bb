"""Commits of one consumer, beside everything else it does.

aiokafka's ``commit()`` tries again for as long as an error may pass, under whatever generation there is by then, and
has no deadline. It also shields the request: one that was given up goes on, and when its answer comes late, an error
about a generation that is over resets the present one. So the request is sent from here, in a task of its own that
whoever waits can leave, and that a rebalance gives up.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.errors import (
    IllegalGenerationError,
    IllegalStateError,
    KafkaError,
    RebalanceInProgressError,
    UnknownMemberIdError,
    UnknownTopicOrPartitionError,
)
from aiokafka.structs import OffsetAndMetadata

from rustmq_sdk.drivers.kafka import metadata
from rustmq_sdk.drivers.kafka.failures import translate
from rustmq_sdk.drivers.kafka.holdings import Holdings
from rustmq_sdk.drivers.kafka.quieting import said_by_us
from rustmq_sdk.values import Assignment, Checkpoint, CommitOutcome

RETRY_PAUSE = 0.1
"""Seconds before a commit that failed for a reason that may pass is sent again: aiokafka's own."""
_OUT_OF_TURN = (RebalanceInProgressError, IllegalGenerationError, UnknownMemberIdError)


class OffsetCommits:
    """Sends checkpoints.

    Args:
        generation: aiokafka's, of this moment; None without a group's rebalances.
    """

    def __init__(self, consumer: AIOKafkaConsumer, holdings: Holdings, generation: Callable[[], int | None]) -> None:
        self._consumer = consumer
        self._holdings = holdings
        self._generation = generation
        self._running: set[asyncio.Task[Collection[str]]] = set()

    async def send(self, checkpoints: Mapping[Assignment, Checkpoint]) -> Mapping[Assignment, CommitOutcome]:
        """As :meth:`rustmq_sdk.slots.LogSubscription.commit`."""
        outcomes: dict[Assignment, CommitOutcome] = {}
        ours: dict[Assignment, Checkpoint] = {}
        for assignment, checkpoint in checkpoints.items():
            if self._holdings.may_commit(assignment) and self._generation() == self._holdings.generation:
                ours[assignment] = checkpoint
            else:
                # Of those whose fate is open nobody can say yet whether they were lost.
                known = self._holdings.may_commit(assignment) or assignment in self._holdings.released
                outcomes[assignment] = CommitOutcome.RETRY if known else CommitOutcome.FENCED

        if ours:
            outcomes |= await self._commit(ours)

        return outcomes

    async def give_up(self) -> None:
        """None is sent from now on that was begun before."""
        running = list(self._running)
        for task in running:
            task.cancel()

        if running:
            await asyncio.wait(running)

    async def _commit(self, checkpoints: Mapping[Assignment, Checkpoint]) -> Mapping[Assignment, CommitOutcome]:
        offsets = {
            KafkaPartition(*assignment.tp): OffsetAndMetadata(checkpoint.offset, metadata.as_text(checkpoint.extra))
            for assignment, checkpoint in checkpoints.items()
        }
        with said_by_us():
            task = asyncio.create_task(self._until_answered(offsets), name="rustmq-kafka-commit")

        self._running.add(task)
        task.add_done_callback(self._running.discard)
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            task.cancel()
            raise

        if task.cancelled():
            return dict.fromkeys(checkpoints, CommitOutcome.RETRY)

        error = task.exception()
        # What is gone is asked for again until a rebalance has taken it away.
        gone = task.result() if error is None else ()
        retried = {one: CommitOutcome.RETRY for one in checkpoints if one.tp.topic in gone}
        return dict.fromkeys(checkpoints, _outcome(error)) | retried

    async def _until_answered(self, offsets: Mapping[KafkaPartition, OffsetAndMetadata]) -> Collection[str]:
        """Answers the topics that do not exist any more: their commits are refused, and all others are made."""
        coordinator, generation = self._consumer._coordinator, self._generation()
        subscription = self._consumer._subscription.subscription
        while True:
            await coordinator.ensure_coordinator_known()
            assignment = subscription.assignment
            if assignment is None or not offsets.keys() <= assignment.tps or self._generation() != generation:
                raise IllegalStateError("a rebalance was quicker")

            try:
                async with coordinator._commit_lock:
                    await coordinator._do_commit_offsets(assignment, offsets)
            except _OUT_OF_TURN:
                raise
            except UnknownTopicOrPartitionError:
                gone = await self._gone(offsets)
                if gone is not None:
                    return gone
            except KafkaError as error:
                if not error.retriable:
                    raise
            else:
                return ()

            await asyncio.sleep(RETRY_PAUSE)

    async def _gone(self, offsets: Mapping[KafkaPartition, OffsetAndMetadata]) -> Collection[str] | None:
        """One refusal is all that aiokafka tells: makes the commits of each topic for itself.

        None where the only topic is there after all: brokers learn of a new one one after the other.
        """
        by_topic: defaultdict[str, dict[KafkaPartition, OffsetAndMetadata]] = defaultdict(dict)
        for partition, offset in offsets.items():
            by_topic[partition.topic][partition] = offset

        if len(by_topic) > 1:
            return [topic for each in by_topic.values() for topic in await self._until_answered(each)]

        await self._consumer._client.force_metadata_update()
        (topic,) = by_topic
        return None if self._consumer.partitions_for_topic(topic) else (topic,)


def _outcome(error: BaseException | None) -> CommitOutcome:
    if error is None:
        return CommitOutcome.COMMITTED

    if isinstance(error, RebalanceInProgressError | IllegalStateError):
        # It has only begun, and may give everything back; or it was quicker.
        return CommitOutcome.RETRY

    if isinstance(error, _OUT_OF_TURN):
        return CommitOutcome.FENCED

    if isinstance(error, KafkaError):
        raise translate(error, slot="source", operation="commit") from error

    raise error
