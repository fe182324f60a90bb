"""Dead letters, in a topic."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from rustmq_sdk._asyncio_island import Island
from rustmq_sdk.drivers.kafka.dialects import describe
from rustmq_sdk.drivers.kafka.options import Dialect
from rustmq_sdk.drivers.kafka.producing import Producing
from rustmq_sdk.slots import DeadLetterQueue
from rustmq_sdk.values import DeadLetter, OutgoingMessage, ProducerSequence


class _Numbers(NamedTuple):
    """Of one partition: under which name letters go there, and how many went."""

    producer_id: bytes
    next: int


class KafkaDeadLetters:
    """Fills :class:`rustmq_sdk.slots.DeadLetterQueue`.

    A letter goes to the partition with its origin's number, modulo theirs: Spring's choice where there is one, and that
    of KIP-1191. Letters of one partition keep their order.

    Args:
        island: where the client lives.
        producing: what sends them.
        topic: that they go to.
        dialects: how they are described.
    """

    def __init__(self, island: Island, producing: Producing, topic: str, dialects: Sequence[Dialect]) -> None:
        self._island = island
        self._producing = producing
        self._topic = topic
        self._dialects = dialects
        self._numbers: dict[int, _Numbers] = {}

    async def put(self, letters: Sequence[DeadLetter]) -> None:
        if letters:
            await self._island.run(self._put, letters)

    async def _put(self, letters: Sequence[DeadLetter]) -> None:
        partitions = await self._producing.partitions(self._topic)
        shares: defaultdict[int, list[OutgoingMessage]] = defaultdict(list)
        for letter in letters:
            shares[(letter.tp.partition or 0) % partitions].append(describe(letter, self._dialects))

        for partition, messages in shares.items():
            await self._append(partition, messages)

    async def _append(self, partition: int, messages: list[OutgoingMessage]) -> None:
        # A number of its own spares a letter that is sent again within the append its duplicate. When the append fails
        # nobody knows what will be put next, so the numbers begin anew under another name.
        name, first = self._numbers.pop(partition, _Numbers(os.urandom(16), 0))
        await self._producing.append(self._topic, partition, messages, ProducerSequence(name, first))
        self._numbers[partition] = _Numbers(name, first + len(messages))


def _conforms(letters: KafkaDeadLetters) -> DeadLetterQueue:
    return letters
