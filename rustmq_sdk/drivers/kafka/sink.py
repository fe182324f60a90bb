"""Appending to partitions, each append once.

``AIOKafkaProducer`` is not used. It makes up sequence numbers of its own, tries for ever, and what it was given cannot
be taken back: an append that was given up would be stored beside its own repetition. Here each append has the numbers
that the runtime gave it and a deadline, and whoever repeats it repeats the same numbers.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial

from rustmq_sdk._asyncio_island import Island
from rustmq_sdk.drivers.kafka.batch_store import Append, BatchStore, Refused
from rustmq_sdk.drivers.kafka.cluster import Cluster
from rustmq_sdk.drivers.kafka.encoding import CODECS, Answer, cut
from rustmq_sdk.drivers.kafka.leaders import Leaders, MakeTopic
from rustmq_sdk.drivers.kafka.lines import Lines, Pending, Sent
from rustmq_sdk.drivers.kafka.options import KafkaOptions
from rustmq_sdk.drivers.kafka.patience import Patience
from rustmq_sdk.errors import NotAllStored, PermanentDriverError, RustMQError
from rustmq_sdk.slots import Sink
from rustmq_sdk.values import OutgoingMessage, Payloads, ProducerSequence, SentMessage, SentMessages

APPEND = 9.0
"""Seconds for one append with all its attempts. A producer's ``send_timeout``, 30 s by default, gives each a third."""


class Appender:
    """Appends to the partitions of a cluster. On an asyncio loop.

    Args:
        cluster: open.
        options: for compression, the size of batches, and whether topics are made.
        make_topic: makes a topic that does not exist.
        wall_clock_ms: milliseconds since the epoch.
    """

    def __init__(
        self, cluster: Cluster, options: KafkaOptions, make_topic: MakeTopic, wall_clock_ms: Callable[[], int]
    ) -> None:
        self._leaders = Leaders(cluster, make_topic if options.create else None)
        self._batches = BatchStore(cluster, self._leaders, CODECS[options.compression])
        self._batch_bytes = options.batch_bytes
        self._wall_clock_ms = wall_clock_ms
        self._lines = Lines()
        self._locks: defaultdict[tuple[str, int], asyncio.Lock] = defaultdict(asyncio.Lock)
        self._closed = False

    async def close(self) -> None:
        """Ends what is under way; it gets its error."""
        self._closed = True
        await self._batches.close()

    async def partitions(self, name: str) -> int:
        """How many there are; asks a broker every time."""
        patience = self._patience("partitions")
        self._leaders.forget(name)
        async with patience.at_most(APPEND):
            return len((await self._leaders.topic(name, patience)).leaders)

    async def append(
        self,
        topic: str,
        partition: int,
        messages: Sequence[OutgoingMessage],
        sequence: ProducerSequence | None,
        *,
        hurried: bool = False,
    ) -> Sequence[SentMessage]:
        """As :meth:`rustmq_sdk.slots.Sink.append`, of at least one message.

        Args:
            topic: of the partition.
            partition: where to.
            messages: what.
            sequence: their numbers.
            hurried: somebody repeats it, and wants to know at once that nothing could be sent. Whoever gives up on an
                attempt has to take its messages for stored or not.
        """

        def start() -> Pending:
            return Pending(self._wall_clock_ms(), cut(messages, self._batch_bytes)[::-1])

        patience = self._patience("append", hurried=hurried)
        async with patience.at_most(APPEND), self._locks[topic, partition]:
            if sequence is None:
                return _given(await self._append(Append(topic, partition, messages, 0, None, start(), patience)))

            line = self._lines.of(topic, partition, sequence, asyncio.get_running_loop().time())
            first, count = sequence.first, len(messages)
            sent = line.answered(first, count)
            if sent is None:
                pending = line.begin(first, count, start)
                patience.unanswered = pending.is_begun
                sent = await self._append(Append(topic, partition, messages, first, line, pending, patience))
                line.finish(first, count, sent)

            return _given(sent)

    async def _append(self, append: Append) -> Sent:
        pending = append.pending
        while pending.left:
            part = pending.left[-1]
            try:
                append.settle(await self._batches.store(append, part))
            except Refused as refused:
                if len(part) > 1:
                    pending.halve()
                else:
                    append.settle(refused.reason)
            except PermanentDriverError as error:
                if not pending.done:
                    raise

                while pending.left:
                    append.settle(error)

        return _sent(append)

    def _patience(self, operation: str, *, hurried: bool = False) -> Patience:
        return Patience("sink", operation, lambda: self._closed, hurried=hurried)


def _given(sent: Sent) -> Sequence[SentMessage]:
    if isinstance(sent, Exception):
        raise sent

    return sent


def _sent(append: Append) -> Sent:
    """Where the messages of an append are, and which of them are not stored."""
    done = append.pending.done
    if len(done) == 1:
        ((part, outcome),) = done
        if isinstance(outcome, RustMQError):
            return outcome

        if outcome.base >= 0:
            offsets = range(outcome.base, outcome.base + len(part))
            return SentMessages(append.topic, append.partition, offsets, _stamps(append, part, outcome))

    refused: dict[int, Exception] = {}
    sent: list[SentMessage | None] = []
    for part, outcome in done:
        if isinstance(outcome, Answer):
            sent += _sent_of(append, part, outcome)
        else:
            refused |= dict.fromkeys(part, outcome)
            sent += [None] * len(part)

    return NotAllStored(refused, sent, slot="sink", operation="append") if refused else sent  # type: ignore[return-value]


def _sent_of(append: Append, part: range, answer: Answer) -> list[SentMessage]:
    stamps = _stamps(append, part, answer)
    return [
        SentMessage(
            append.topic,
            append.partition,
            answer.base + place if answer.base >= 0 else None,
            stamps if isinstance(stamps, int) else stamps[place],
        )
        for place in range(len(part))
    ]


def _stamps(append: Append, part: range, answer: Answer) -> Sequence[int] | int:
    """The time of each message, or of all: the broker's if the topic has it so, else what the messages say."""
    if answer.timestamp >= 0:
        return answer.timestamp

    now_ms = append.pending.now_ms
    if isinstance(append.messages, Payloads):
        return now_ms

    stamps = [append.messages[index].timestamp for index in part]
    return [now_ms if stamp is None else stamp for stamp in stamps]


class KafkaSink:
    """Fills :class:`rustmq_sdk.slots.Sink`: all replicas have an append when it returns, and a repeated one is one."""

    def __init__(self, island: Island, appender: Appender) -> None:
        self._island = island
        self._appender = appender

    async def partitions(self, topic: str) -> int:
        return await self._island.run(self._appender.partitions, topic)

    async def append(
        self,
        topic: str,
        partition: int,
        messages: Sequence[OutgoingMessage],
        *,
        sequence: ProducerSequence | None,
    ) -> Sequence[SentMessage]:
        if not messages:
            return []

        append = partial(self._appender.append, hurried=sequence is not None)
        return await self._island.run(append, topic, partition, messages, sequence)


def _conforms(sink: KafkaSink) -> Sink:
    return sink
