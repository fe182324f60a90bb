"""Appending to partitions, each append once. On an asyncio loop.

``AIOKafkaProducer`` is not used. It makes up sequence numbers of its own, tries for ever, and what it was given cannot
be taken back: an append that was given up would be stored beside its own repetition. Here each append has the numbers
that the runtime gave it and a deadline, and whoever repeats it repeats the same numbers.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import chain

from rustmq_sdk.drivers.kafka.cluster import Cluster
from rustmq_sdk.drivers.kafka.encoding import CODECS, Answer, cut
from rustmq_sdk.drivers.kafka.leaders import Leaders, MakeTopic
from rustmq_sdk.drivers.kafka.lines import Lines, Pending
from rustmq_sdk.drivers.kafka.options import KafkaOptions
from rustmq_sdk.drivers.kafka.patience import Patience
from rustmq_sdk.drivers.kafka.storing import Append, Storing, TooLarge
from rustmq_sdk.values import OutgoingMessage, Payloads, ProducerSequence, SentMessage, SentMessages

APPEND = 9.0
"""Seconds for one append with all its attempts. A producer's ``send_timeout``, 30 s by default, gives each a third."""


class Producing:
    """Appends to the partitions of a cluster.

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
        self._storing = Storing(cluster, self._leaders, CODECS[options.compression])
        self._batch_bytes = options.batch_bytes
        self._wall_clock_ms = wall_clock_ms
        self._lines = Lines()
        self._locks: defaultdict[tuple[str, int], asyncio.Lock] = defaultdict(asyncio.Lock)
        self._closed = False

    async def close(self) -> None:
        """Ends what is under way; it gets its error."""
        self._closed = True
        await self._storing.close()

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
        patience = self._patience("append", hurried=hurried)
        async with patience.at_most(APPEND), self._locks[topic, partition]:
            if sequence is None:
                pending = Pending(self._wall_clock_ms())
                return await self._append(Append(topic, partition, messages, 0, None, pending, patience))

            line = self._lines.of(topic, partition, sequence, asyncio.get_running_loop().time())
            first, count = sequence.first, len(messages)
            if (sent := line.answered(first, count)) is not None:
                return sent

            pending = line.begin(first, count, self._wall_clock_ms())
            patience.unanswered = pending.unanswered
            sent = await self._append(Append(topic, partition, messages, first, line, pending, patience))
            line.finish(first, count, sent)
            return sent

    async def _append(self, append: Append) -> Sequence[SentMessage]:
        # The next one is at the end.
        unsent = cut(append.messages, self._batch_bytes)
        unsent.reverse()
        done: list[tuple[range, Answer]] = []
        while unsent:
            part = unsent.pop()
            try:
                answer = append.pending.stored.get(part) or await self._storing.store(append, part)
            except TooLarge:
                middle = (part.start + part.stop) // 2
                unsent += [range(middle, part.stop), range(part.start, middle)]
                continue

            append.pending.stored[part] = answer
            done.append((part, answer))
            # From here on some of its messages are stored, and an error must not say that none is.
            append.patience.unanswered = append.pending.unanswered = bool(unsent)

        return _sent(append, done)

    def _patience(self, operation: str, *, hurried: bool = False) -> Patience:
        return Patience("sink", operation, lambda: self._closed, hurried=hurried)


def _sent(append: Append, done: list[tuple[range, Answer]]) -> Sequence[SentMessage]:
    """Where the messages of an append are."""
    if len(done) == 1 and done[0][1].base >= 0:
        ((part, answer),) = done
        return SentMessages(
            append.topic, append.partition, range(answer.base, answer.base + len(part)), _stamps(append, part, answer)
        )

    return list(chain.from_iterable(_sent_of(append, part, answer) for part, answer in done))


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
