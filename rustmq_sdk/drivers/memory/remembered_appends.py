"""What producers appended last, so that a repeated append is answered and not stored again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from rustmq_sdk.errors import PermanentDriverError
from rustmq_sdk.values import ProducerSequence, SentMessage, TopicPartition

REMEMBERED = 64
"""Appends remembered for each producer and partition. Kafka's broker remembers 5, the most a client keeps in flight."""


class RememberedAppends:
    """Answers of the latest appends, by producer, partition and first sequence number."""

    def __init__(self) -> None:
        self._answers: dict[tuple[TopicPartition, bytes], OrderedDict[int, Sequence[SentMessage]]] = {}

    def recall(self, tp: TopicPartition, sequence: ProducerSequence, count: int) -> Sequence[SentMessage] | None:
        """What the same append was answered before; None if it is new.

        Raises:
            PermanentDriverError: the sequence was used for another append, or the answer is forgotten.
        """
        answers = self._answers.get((tp, sequence.producer_id))
        if not answers:
            return None

        answer = answers.get(sequence.first)
        if answer is not None and len(answer) == count:
            return answer

        last = next(reversed(answers))
        expected = last + len(answers[last])
        if sequence.first >= expected:
            return None

        raise PermanentDriverError(
            f"sequence {sequence.first} with {count} messages does not follow {expected - 1} and repeats none of the "
            f"last {REMEMBERED} appends. Give every append the next free number",
            slot="sink",
            operation="append",
        )

    def note(self, tp: TopicPartition, sequence: ProducerSequence, answer: Sequence[SentMessage]) -> None:
        """Remembers an answer, and forgets the oldest of too many."""
        answers = self._answers.setdefault((tp, sequence.producer_id), OrderedDict())
        answers[sequence.first] = answer
        if len(answers) > REMEMBERED:
            answers.popitem(last=False)

    def forget(self, topic: str) -> None:
        """Drops a deleted topic."""
        self._answers = {key: answers for key, answers in self._answers.items() if key[0].topic != topic}
