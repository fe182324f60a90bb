"""Dead letters, in a topic."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence

from rustmq_sdk._asyncio_island import Island
from rustmq_sdk.drivers.kafka.dialects import describe
from rustmq_sdk.drivers.kafka.options import Dialect
from rustmq_sdk.drivers.kafka.sink import Appender
from rustmq_sdk.errors import NotAllStored, PermanentDriverError
from rustmq_sdk.slots import PlacedDeadLetterQueue
from rustmq_sdk.values import DeadLetter, ProducerSequence


class _Numbers:
    """Of one partition: under which name letters go there, and how many went.

    Attributes:
        unfinished: the appends of a put that failed. They may be stored, so they are repeated as they were, or their
            letters go under another name.
    """

    def __init__(self) -> None:
        self.unfinished: list[list[DeadLetter]] = []
        self._name = os.urandom(16)
        self._first = 0

    def begin(self, letters: list[DeadLetter]) -> bool:
        """Whether the appends that are unfinished are of these letters; what comes after them is one more."""
        known = 0
        for append in self.unfinished:
            if letters[known : known + len(append)] != append:
                return False

            known += len(append)

        if known < len(letters):
            self.unfinished.append(letters[known:])

        return True

    def number(self, place: int) -> ProducerSequence:
        """Of the letter at this place of the put."""
        return ProducerSequence(self._name, self._first + place)

    def finish(self, count: int) -> None:
        """So many are stored."""
        self._first += count
        self.unfinished = []


class KafkaDeadLetters:
    """Fills :class:`rustmq_sdk.slots.PlacedDeadLetterQueue`.

    A letter goes to the partition with its origin's number, modulo theirs: Spring's choice where there is one, and that
    of KIP-1191. Letters of one partition keep their order. Those that the topic never takes are left out.

    Args:
        island: where the client lives.
        appender: what sends them.
        topic: that they go to.
        dialects: how they are described.
    """

    def __init__(self, island: Island, appender: Appender, topic: str, dialects: Sequence[Dialect]) -> None:
        self._island = island
        self._appender = appender
        self._topic = topic
        self._dialects = dialects
        self._numbers: dict[int, _Numbers] = {}

    async def places(self, letters: Sequence[DeadLetter]) -> Sequence[int]:
        """The partition of each."""
        if not letters:
            return []

        partitions = await self._island.run(self._appender.partitions, self._topic)
        return [(letter.tp.partition or 0) % partitions for letter in letters]

    async def put(self, letters: Sequence[DeadLetter]) -> None:
        shares: defaultdict[int, list[int]] = defaultdict(list)
        for number, partition in enumerate(await self.places(letters)):
            shares[partition].append(number)

        refused: dict[int, Exception] = {}
        for partition, numbers in shares.items():
            reasons = await self._island.run(self._put, partition, [letters[number] for number in numbers])
            refused |= {numbers[place]: reason for place, reason in reasons.items()}

        if refused:
            raise refused[0] if len(letters) == 1 else NotAllStored(refused, slot="dead_letters", operation="put")

    async def _put(self, partition: int, letters: list[DeadLetter]) -> dict[int, Exception]:
        """Why some of them never will be stored, by their place."""
        # Nobody else may go by this name meanwhile.
        numbers = self._numbers.pop(partition, None) or _Numbers()
        if not numbers.begin(letters):
            numbers = _Numbers()
            numbers.begin(letters)

        refused: dict[int, Exception] = {}
        place = 0
        try:
            for append in numbers.unfinished:
                reasons = await self._append(partition, append, numbers.number(place))
                refused |= {place + number: reason for number, reason in reasons.items()}
                place += len(append)
        except BaseException:
            self._numbers[partition] = numbers
            raise

        if not refused:
            numbers.finish(place)
            self._numbers[partition] = numbers

        return refused

    async def _append(
        self, partition: int, letters: list[DeadLetter], sequence: ProducerSequence
    ) -> Mapping[int, Exception]:
        messages = [describe(letter, self._dialects) for letter in letters]
        try:
            await self._appender.append(self._topic, partition, messages, sequence)
        except NotAllStored as partly:
            return partly.refused
        except PermanentDriverError as error:
            return dict.fromkeys(range(len(letters)), error)

        return {}


def _conforms(letters: KafkaDeadLetters) -> PlacedDeadLetterQueue:
    return letters
