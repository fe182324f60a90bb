"""What a broker needs to recognise a repeated append, for each producer and partition. Pure.

A broker numbers the messages of a producer in a partition, and remembers the last five batches. So do we: the numbers
of the runtime (:class:`~rustmq_sdk.values.ProducerSequence`) become Kafka's, and a repeated append consists of the very
batches of the first one.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rustmq_sdk.drivers.kafka.encoding import Answer, Identity
from rustmq_sdk.errors import NotAllStored, RustMQError
from rustmq_sdk.values import ProducerSequence, SentMessage

REMEMBERED = 5
"""Appends whose answers are kept for each producer and partition; a broker remembers as many batches."""
PRODUCERS = 1_000
"""Producers that are kept for each partition, and as many more as have an append of which some may be stored."""
FORGOTTEN_SECONDS = 3_600.0
"""After so long unused any line is gone. A producer that failed comes back under a new name, so most are never used
again; an append that may still be repeated is, within seconds, or a minute where a circuit is open."""
_NUMBERS = 2**31  # the sequence wraps to 0 after 2**31 - 1


@dataclass(slots=True)
class Pending:
    """An append on its way. It goes on where it was, so a repeated one is made of the batches of the first.

    Attributes:
        now_ms: the time of its first attempt, which its batches carry.
        left: the batches that were neither stored nor refused yet; the next one is at the end.
        done: what became of each of the others: where it is, or why it never will be stored.
        unanswered: the next batch was sent and its answer lost: it may be stored or not.
    """

    now_ms: int
    left: list[range]
    done: list[tuple[range, Answer | RustMQError]] = field(default_factory=list)
    unanswered: bool = False

    @property
    def is_begun(self) -> bool:
        """Some of it may be stored, so no error may say that none of it is."""
        return self.unanswered or any(isinstance(outcome, Answer) for _, outcome in self.done)

    def halve(self) -> None:
        """The next batch goes as two."""
        part = self.left.pop()
        middle = (part.start + part.stop) // 2
        self.left += [range(middle, part.stop), range(part.start, middle)]

    def settle(self, outcome: Answer | RustMQError) -> None:
        """It is known what became of the next batch."""
        self.done.append((self.left.pop(), outcome))
        self.unanswered = False


Sent = Sequence[SentMessage] | NotAllStored | RustMQError
"""What an append is answered: where its messages are, or why some of them, or its only one, are not."""


class Line:
    """The appends of one producer to one partition.

    Attributes:
        identity: what the broker knows it by; None until it was asked for one.
        used: when that was last, seconds of the clock that ``Lines.of()`` is given.
    """

    def __init__(self) -> None:
        self.identity: Identity | None = None
        self.used = 0.0
        self._origin: int | None = None
        self._pending: tuple[int, int, Pending] | None = None
        self._answers: OrderedDict[tuple[int, int], Sent] = OrderedDict()

    @property
    def is_needed(self) -> bool:
        """Some of an append may be stored. Repeated under another identity that would be stored twice."""
        return self._pending is not None and self._pending[2].is_begun

    def number(self, first: int) -> int:
        """Kafka's number of the message that the runtime calls ``first``."""
        if self._origin is None:
            self._origin = first

        return (first - self._origin) % _NUMBERS

    def skip(self, count: int) -> None:
        """So many messages are refused: those after them get their numbers, or the broker would miss some."""
        if self._origin is not None:
            self._origin += count

    def begin(self, first: int, count: int, start: Callable[[], Pending]) -> Pending:
        """An append begins, or the one that was tried last goes on."""
        if self._pending is None or self._pending[:2] != (first, count):
            self._pending = (first, count, start())

        return self._pending[2]

    def finish(self, first: int, count: int, sent: Sent) -> None:
        """It is known what became of the append."""
        self._pending = None
        self._answers[first, count] = sent
        while len(self._answers) > REMEMBERED:
            self._answers.popitem(last=False)

    def answered(self, first: int, count: int) -> Sent | None:
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

    def of(self, topic: str, partition: int, sequence: ProducerSequence, now: float) -> Line:
        """The line of a producer.

        Args:
            topic: of the partition.
            partition: where to.
            sequence: says which producer.
            now: seconds of a clock that does not go back.
        """
        lines = self._lines[topic, partition]
        line = lines.get(sequence.producer_id)
        if line is None:
            line = lines[sequence.producer_id] = Line()
            _forget_some(lines, now)

        lines.move_to_end(sequence.producer_id)
        line.used = now
        return line


def _forget_some(lines: OrderedDict[bytes, Line], now: float) -> None:
    """The last one is new; in front are those that have not been used for the longest time."""
    *old, _ = lines.items()
    for name, line in old:
        unused = now - line.used > FORGOTTEN_SECONDS
        if not unused and len(lines) <= PRODUCERS:
            return

        if unused or not line.is_needed:
            del lines[name]
