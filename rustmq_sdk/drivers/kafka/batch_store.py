"""One batch of one partition, sent until it is stored or cannot be. On an asyncio loop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from aiokafka import errors as kafka
from aiokafka.protocol.transaction import InitProducerIdRequest
from aiokafka.util import INTEGER_MAX_VALUE

from rustmq_sdk.drivers.kafka.broker_queue import BrokerQueue
from rustmq_sdk.drivers.kafka.cluster import Cluster
from rustmq_sdk.drivers.kafka.encoding import NOBODY, Answer, Identity, encode
from rustmq_sdk.drivers.kafka.failures import InvalidRecord, NotSent, Unanswered, broker_error
from rustmq_sdk.drivers.kafka.leaders import Leaders
from rustmq_sdk.drivers.kafka.lines import Line, Pending
from rustmq_sdk.drivers.kafka.patience import Patience
from rustmq_sdk.errors import PermanentDriverError, RustMQError
from rustmq_sdk.values import OutgoingMessage, TopicPartition

_Kinds: TypeAlias = tuple[type[Exception], ...]

_OF_A_MESSAGE: _Kinds = (
    kafka.MessageSizeTooLargeError,
    kafka.RecordListTooLargeError,
    kafka.InvalidTimestampError,
    InvalidRecord,
)
"""A broker refuses the whole batch for one message."""
_LOST_COUNT: _Kinds = (
    kafka.OutOfOrderSequenceNumber,
    kafka.UnknownProducerId,
    kafka.InvalidProducerEpoch,
    kafka.InvalidProducerIdMapping,
)
_STORED: _Kinds = (kafka.DuplicateSequenceNumber,)
_UNSURE: _Kinds = (
    kafka.RequestTimedOutError,
    kafka.NotEnoughReplicasAfterAppendError,
    kafka.StaleLeaderEpochCodeError,  # NETWORK_EXCEPTION today
    kafka.KafkaStorageError,
    kafka.UnknownError,
)
"""A batch may be in the log, or half of it, although the answer does not say where."""


class Refused(Exception):
    """A message of the batch will never be stored; none of the batch is."""

    def __init__(self, reason: RustMQError) -> None:
        self.reason = reason
        super().__init__(str(reason))


@dataclass(slots=True)
class Append:
    """An append under way.

    Attributes:
        first: the number of the first message in ``line``.
        line: None for one without numbers, which cannot be sent again when its answer was lost.
        under_way: a batch was sent, and its answer is waited for.
    """

    topic: str
    partition: int
    messages: Sequence[OutgoingMessage]
    first: int
    line: Line | None
    pending: Pending
    patience: Patience
    under_way: bool = False

    def left(self) -> None:
        """A batch is sent now."""
        self.under_way = True

    def cancelled(self) -> None:
        """Nobody waits any more."""
        if self.under_way:
            self.pending.unanswered = self.patience.unanswered = True

    def lost(self, error: Exception) -> None:
        """An answer was lost. Raises ``OutcomeUnknown`` if that is the end."""
        self.pending.unanswered = self.patience.unanswered = True
        if self.line is None:
            raise self.failure(error) from error

    def settle(self, outcome: Answer | RustMQError) -> None:
        """It is known what became of the next batch; of a refused one that has one message, or all that are left."""
        if self.line is not None and not isinstance(outcome, Answer):
            self.line.skip(len(self.pending.left[-1]))

        self.pending.settle(outcome)
        self.patience.unanswered = self.pending.is_begun

    def failure(self, error: BaseException) -> RustMQError:
        """The error to raise because of this one, with the partition it concerns."""
        return self.patience.failure(self.patience.translated(error, str(TopicPartition(self.topic, self.partition))))

    def refusal(self, error: BaseException) -> RustMQError:
        """The error of what is left, which is not stored, whatever became of other batches."""
        translated = self.patience.translated(error, str(TopicPartition(self.topic, self.partition)))
        return self.patience.failure(translated) if self.pending.unanswered else translated


class BatchStore:
    """Stores batches.

    Args:
        cluster: open.
        leaders: who leads which partition.
        codec: of :data:`~rustmq_sdk.drivers.kafka.encoding.CODECS`.
    """

    def __init__(self, cluster: Cluster, leaders: Leaders, codec: int) -> None:
        self._cluster = cluster
        self._leaders = leaders
        self._codec = codec
        self._queues: dict[int, BrokerQueue] = {}
        self._closed = False

    async def close(self) -> None:
        """Ends what is under way; it gets its error."""
        self._closed = True
        async with asyncio.TaskGroup() as tasks:
            for queue in self._queues.values():
                tasks.create_task(queue.close())

    async def store(self, append: Append, part: range) -> Answer:
        """Stores these messages of an append as one batch.

        Raises:
            Refused: they are too many for one batch, or one of them is nothing that the topic takes.
            PermanentDriverError: they cannot be stored, nor can what comes after them.
            RustMQError: nobody knows whether they are, or nothing could be sent.
        """
        while True:
            problem = await self._try(append, part)
            if isinstance(problem, Answer):
                return problem

            self._leaders.forget(append.topic)
            await append.patience.pause(problem)

    async def _try(self, append: Append, part: range) -> Answer | Exception:
        """One attempt: the answer, or why it makes sense to try again."""
        data = await self._encoded(append, part)
        node = await self._leaders.leader(append.topic, append.partition, append.patience)
        if self._closed:
            return NotSent("the client is closed")

        queue = self._queue(node)
        append.under_way = False
        try:
            answer = await queue.send(append.topic, append.partition, data, append.left)
        except NotSent as error:
            return error
        except Unanswered as error:
            append.lost(error)
            return error
        except asyncio.CancelledError:
            append.cancelled()
            raise

        return answer if not answer.code else self._judge(append, part, answer)

    def _judge(self, append: Append, part: range, answer: Answer) -> Answer | Exception:
        """What an error that a broker answers means for this batch."""
        error = broker_error(answer.code)
        if isinstance(error, _STORED):
            return Answer(0)  # it is stored, and the broker has forgotten where

        # A leader that loses its office while the replicas copy a batch answers as one that never had it; but it says
        # where it had put the batch (``DelayedProduce`` of Apache Kafka).
        if answer.base >= 0 or isinstance(error, _UNSURE):
            append.lost(error)
            return error

        if isinstance(error, _LOST_COUNT) and append.line is not None and not append.pending.unanswered:
            append.line.start_over()
            return error

        if getattr(error, "retriable", False):
            return error

        refusal = append.refusal(error)
        if isinstance(error, _OF_A_MESSAGE) and (len(part) > 1 or not append.pending.unanswered):
            raise Refused(refusal) from error

        raise refusal from error

    async def _encoded(self, append: Append, part: range) -> bytes:
        line, identity, sequence = append.line, NOBODY, -1
        if line is not None:
            if line.identity is None:
                line.identity = await self._identify(append.patience)

            identity, sequence = line.identity, line.number(append.first + part.start)

        messages = append.messages if len(part) == len(append.messages) else append.messages[part.start : part.stop]
        try:
            return encode(
                messages, codec=self._codec, now_ms=append.pending.now_ms, identity=identity, sequence=sequence
            )
        except (TypeError, ValueError, OverflowError) as error:
            reason = PermanentDriverError(
                f"a message for {append.topic} cannot be stored by Kafka: {error}", slot="sink", operation="append"
            )
            reason.__cause__ = error
            raise Refused(reason) from error

    async def _identify(self, patience: Patience) -> Identity:
        """Asks for a name under which a broker counts batches."""
        request: Any = InitProducerIdRequest(None, INTEGER_MAX_VALUE)
        while True:
            try:
                answer = await self._cluster.ask_any(request)
            except (NotSent, Unanswered) as error:
                await patience.pause(error)  # asking twice does no harm
                continue

            if not answer.error_code:
                return Identity(answer.producer_id, answer.producer_epoch)

            problem = broker_error(answer.error_code)
            if not getattr(problem, "retriable", False):
                raise patience.failure(patience.translated(problem)) from problem

            await patience.pause(problem)

    def _queue(self, node: int) -> BrokerQueue:
        queue = self._queues.get(node)
        if queue is None:
            queue = self._queues[node] = BrokerQueue(lambda request: self._cluster.ask(node, request))

        return queue
