"""What the log does not have at the position where it is to be read: lost, or damaged.

A broker has to be asked what there is instead, and may take its time, or be gone. So it is asked beside the fetches,
which go on with all other partitions; and nothing moves before the fetch that hands the answer over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.errors import CorruptRecordException, OffsetOutOfRangeError

from rustmq_sdk.drivers.kafka.holdings import Holdings
from rustmq_sdk.drivers.kafka.offsets import OffsetQueries
from rustmq_sdk.drivers.kafka.records import build, piece_of
from rustmq_sdk.drivers.kafka.salvage import CORRUPT_READS, UNREADABLE, Salvaged, salvage
from rustmq_sdk.slots import Fetched
from rustmq_sdk.values import Assignment, Broken, Gone

Decision: TypeAlias = "Callable[[int], Fetched | None]"
"""Goes on after the gap, as far as there is room for so many records, and says what was passed."""


class _Question(NamedTuple):
    partition: KafkaPartition
    at: int
    task: asyncio.Task[Decision]


class Gaps:
    """Goes on after them, and says what was passed."""

    def __init__(self, consumer: AIOKafkaConsumer, holdings: Holdings, offsets: OffsetQueries) -> None:
        self._consumer = consumer
        self._holdings = holdings
        self._offsets = offsets
        self._corrupt: dict[KafkaPartition, tuple[int, int]] = {}
        self._questions: dict[Assignment, _Question] = {}

    def is_asked(self, assignment: Assignment) -> bool:
        """A broker is asked what there is at its position, and :meth:`answers` will say so."""
        return assignment in self._questions

    def out_of_range(self, assignment: Assignment, partition: KafkaPartition, then: Callable[[], None]) -> None:
        """The position is below the first offset, or beyond the end: asks which it is, and calls ``then``."""
        self._ask(assignment, partition, self._find_range(assignment, partition), then)

    def answers(self, wanted: Collection[Assignment], most: int) -> Sequence[Fetched]:
        """What was found out of these partitions since. They go on after it from here on.

        Args:
            wanted: those.
            most: records that there is room for.

        Raises:
            DriverError: a question was not answered, and none of the others was looked at. It is asked again when its
                partition is out of range again.
        """
        if not self._questions:
            return ()

        answered = self._answered(wanted)
        for assignment, task in answered.items():
            if task.exception() is not None:
                del self._questions[assignment]
                task.result()

        pieces: list[Fetched] = []
        for assignment, task in answered.items():
            if most <= 0:
                break

            del self._questions[assignment]
            decide = task.result()
            if (found := decide(most)) is not None:
                pieces.append(found)
                most -= len(found.records)

        return pieces

    def _answered(self, wanted: Collection[Assignment]) -> Mapping[Assignment, asyncio.Task[Decision]]:
        answered: dict[Assignment, asyncio.Task[Decision]] = {}
        for assignment, question in list(self._questions.items()):
            if not question.task.done():
                continue

            # Asking has taken its time: it may have been taken away, or sought elsewhere, or be there after all.
            ours = self._holdings.partition(assignment) == question.partition
            if not ours or self._holdings.position(assignment) != question.at:
                del self._questions[assignment]
                question.task.exception()
            elif assignment in wanted:
                answered[assignment] = question.task

        return answered

    async def close(self) -> None:
        """Nobody wants to know any more."""
        tasks = [question.task for question in self._questions.values()]
        self._questions.clear()
        for task in tasks:
            task.cancel()

        if tasks:
            await asyncio.wait(tasks)

    def unreadable(
        self, assignment: Assignment, partition: KafkaPartition, error: Exception, most: int, then: Callable[[], None]
    ) -> None:
        """The batch at the position fails its checksum, or a record of it cannot be decoded: has it read once more.

        Args:
            assignment: whose position it is.
            partition: where it is.
            error: one of ``UNREADABLE``.
            most: records that there is room for.
            then: called when there is an answer.
        """
        at = self._holdings.position(assignment)
        self._move(assignment, partition, at)
        if isinstance(error, CorruptRecordException):
            before, times = self._corrupt.get(partition, (at, 0))
            times = times + 1 if before == at else 1
            self._corrupt[partition] = (at, times)
            if times < CORRUPT_READS:
                return

        question = self._find_records(assignment, partition, at, most)
        self._ask(assignment, partition, self._offsets.ask("fetch", question), then)

    def _ask(
        self,
        assignment: Assignment,
        partition: KafkaPartition,
        question: Coroutine[Any, Any, Decision],
        then: Callable[[], None],
    ) -> None:
        task = asyncio.create_task(question, name="rustmq-kafka-gap")
        self._questions[assignment] = _Question(partition, self._holdings.position(assignment), task)
        task.add_done_callback(lambda _: then())

    async def _find_range(self, assignment: Assignment, partition: KafkaPartition) -> Decision:
        tp = assignment.tp
        start = (await self._offsets.start([tp]))[tp]
        end = (await self._offsets.end([tp]))[tp]
        return partial(self._enter_range, assignment, partition, start, end)

    def _enter_range(
        self, assignment: Assignment, partition: KafkaPartition, start: int, end: int, _: int
    ) -> Fetched | None:
        tp, at = assignment.tp, self._holdings.position(assignment)
        if at > end:
            reason = (
                f"the position is {at} and the log has only offsets {start} to {end}: the topic was deleted and "
                "created again, or the broker has lost its end"
            )
            return Fetched(assignment, (), (), build, at, 0, gone=(Gone(tp, at, at, reason, restart=start),))

        self._move(assignment, partition, max(at, start))
        if start <= at:
            return None  # it was out of range for a moment: a new leader that had not caught up

        return Fetched(assignment, (), (), build, start, 0, gone=(Gone(tp, at, start, "retention"),))

    async def _find_records(self, assignment: Assignment, partition: KafkaPartition, at: int, most: int) -> Decision:
        try:
            found = await salvage(self._consumer, partition, at, most)
        except OffsetOutOfRangeError:
            return _say_nothing  # since: the next fetch finds out
        except UNREADABLE as error:
            found = Salvaged((), [Broken(at, b"", error)], at + 1)

        return partial(self._hand_over, assignment, partition, found)

    def _hand_over(self, assignment: Assignment, partition: KafkaPartition, found: Salvaged, most: int) -> Fetched:
        found = found.at_most(most)
        self._move(assignment, partition, found.next_offset)
        piece = piece_of(assignment, found.rows, found.next_offset)
        return replace(piece, broken=found.broken)

    def _move(self, assignment: Assignment, partition: KafkaPartition, offset: int) -> None:
        self._consumer.seek(partition, offset)
        self._holdings.move(assignment, offset)


def _say_nothing(_: int) -> None:
    """Nothing was passed."""
