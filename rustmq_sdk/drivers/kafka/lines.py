"""What a broker needs to recognise a repeated append, for each producer and partition. Pure.

A broker numbers the messages of a producer in a partition, and remembers the last five batches. So do we: the numbers
of the runtime (:class:`~rustmq_sdk.values.ProducerSequence`) become Kafka's, and a repeated append consists of the very
batches of the first one.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from rustmq_sdk.drivers.kafka.encoding import Answer, Identity
from rustmq_sdk.values import ProducerSequence, SentMessage

REMEMBERED = 5
"""Appends whose answers are kept for each producer and partition; a broker remembers as many batches."""
PRODUCERS = 5
"""Producers that are kept for each partition. One that failed comes back under a new name, so most are gone."""
_NUMBERS = 2**31  # the sequence wraps to 0 behind 2**31 - 1


@dataclass(slots=True)
class Pending:
    """An append on its way.

    Attributes:
        now_ms: the time of its first attempt, which its batches carry.
        stored: what was answered for each batch that is stored already.
        unanswered: a batch was sent and its answer lost: it may be stored or not.
    """

    now_ms: int
    stored: dict[range, Answer] = field(default_factory=dict)
    unanswered: bool = False


class Line:
    """The appends of one producer to one partition.

    Attributes:
        identity: what the broker knows it by; None until it was asked for one.
    """

    def __init__(self) -> None:
        self.identity: Identity | None = None
        self._origin: int | None = None
        self._pending: tuple[int, int, Pending] | None = None
        self._answers: OrderedDict[tuple[int, int], Sequence[SentMessage]] = OrderedDict()

    def number(self, first: int) -> int:
        """Kafka's number of the message that the runtime calls ``first``."""
        if self._origin is None:
            self._origin = first

        return (first - self._origin) % _NUMBERS

    def begin(self, first: int, count: int, now_ms: int) -> Pending:
        """An append begins, or the one that was tried last goes on."""
        if self._pending is None or self._pending[:2] != (first, count):
            self._pending = (first, count, Pending(now_ms))

        return self._pending[2]

    def finish(self, first: int, count: int, sent: Sequence[SentMessage]) -> None:
        """The append is stored."""
        self._pending = None
        self._answers[first, count] = sent
        while len(self._answers) > REMEMBERED:
            self._answers.popitem(last=False)

    def answered(self, first: int, count: int) -> Sequence[SentMessage] | None:
        """What the same append was answered before."""
        return self._answers.get((first, count))

    def start_over(self) -> None:
        """The broker has lost count. What comes next is numbered from 0, under another identity."""
        self.identity = None
        self._origin = None


class Lines:
    """The lines of all partitions, as long as they may be needed."""

    def __init__(self) -> None:
        self._lines: defaultdict[tuple[str, int], OrderedDict[bytes, Line]] = defaultdict(OrderedDict)

    def of(self, topic: str, partition: int, sequence: ProducerSequence) -> Line:
        """The line of a producer."""
        lines = self._lines[topic, partition]
        line = lines.get(sequence.producer_id)
        if line is None:
            line = lines[sequence.producer_id] = Line()

        lines.move_to_end(sequence.producer_id)
        while len(lines) > PRODUCERS:
            lines.popitem(last=False)

        return line
