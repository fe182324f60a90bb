"""The small slots: where messages are appended, state, dead letters, topics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from anyio.lowlevel import checkpoint

from rustmq_sdk.errors import ConfigurationError
from rustmq_sdk.letters import as_message
from rustmq_sdk.slots import Capabilities
from rustmq_sdk.values import (
    DeadLetter,
    OutgoingMessage,
    ProducerSequence,
    SentMessage,
    TopicPartition,
    Version,
    Versioned,
)

if TYPE_CHECKING:
    from rustmq_sdk.drivers.memory.broker import MemoryBroker

# Every call lets the loop turn once before it takes effect, as a call over a network would, and is cancelled only
# there: so a cancelled call had no effect, and races that need a turn of the loop can happen in tests.


class MemorySink:
    """Fills :class:`~rustmq_sdk.slots.Sink`; topics are created by the first who sends, with one partition."""

    def __init__(self, broker: MemoryBroker, capabilities: Capabilities) -> None:
        self._broker = broker
        self._capabilities = capabilities

    async def partitions(self, topic: str) -> int:
        await checkpoint()
        return self._known(topic)

    async def append(
        self,
        topic: str,
        partition: int,
        messages: Sequence[OutgoingMessage],
        *,
        sequence: ProducerSequence | None,
    ) -> Sequence[SentMessage]:
        await checkpoint()
        self._known(topic)
        tp = TopicPartition(topic, partition)
        if sequence is None or not self._capabilities.idempotent_append:
            return self._store(tp, messages)

        remembered = self._broker.remembered_appends
        answer = remembered.recall(tp, sequence, len(messages))
        if answer is None:
            answer = self._store(tp, messages)
            remembered.note(tp, sequence, answer)

        return answer

    def _known(self, topic: str) -> int:
        partitions = self._broker.partition_count(topic)
        if partitions is None:
            self._broker.create_topic(topic)

        return partitions or 1

    def _store(self, tp: TopicPartition, messages: Sequence[OutgoingMessage]) -> Sequence[SentMessage]:
        partition = tp.partition if self._capabilities.kind == "log" else None
        stored = self._broker.append(tp, messages)
        return [SentMessage(tp.topic, partition, offset, timestamp) for offset, timestamp in stored]


class MemoryStateStore:
    """Fills :class:`~rustmq_sdk.slots.StateStore`."""

    def __init__(self) -> None:
        self._values: dict[str, Versioned] = {}
        self._writes = 0

    async def get(self, key: str) -> Versioned | None:
        await checkpoint()
        return self._values.get(key)

    async def put(self, key: str, value: bytes, *, if_version: Version | None) -> Version | None:
        await checkpoint()
        current = self._values.get(key)
        if (current.version if current else None) != if_version:
            return None

        self._writes += 1
        version = Version(self._writes)
        self._values[key] = Versioned(bytes(value), version)
        return version


class MemoryDeadLetters:
    """Fills :class:`~rustmq_sdk.slots.DeadLetterQueue`; the letters are messages of a topic as well."""

    def __init__(self, broker: MemoryBroker, topic: str, capabilities: Capabilities) -> None:
        self._broker = broker
        self._topic = topic
        self._dedup = capabilities.dedup_letters

    async def put(self, letters: Sequence[DeadLetter]) -> None:
        await checkpoint()
        if self._broker.partition_count(self._topic) is None:
            self._broker.create_topic(self._topic)

        box = self._broker.letters[self._topic]
        new = [letter for letter in letters if box.add(letter, dedup=self._dedup)]
        self._broker.append(TopicPartition(self._topic, 0), map(as_message, new))


class MemoryAdmin:
    """Fills :class:`~rustmq_sdk.slots.Admin`."""

    def __init__(self, broker: MemoryBroker, capabilities: Capabilities) -> None:
        self._broker = broker
        self._is_queue = capabilities.kind == "queue"

    async def create_topic(self, name: str, partitions: int, settings: Mapping[str, Any]) -> None:
        await checkpoint()
        for setting, value in settings.items():
            raise ConfigurationError(
                "topics in memory have no settings", field=setting, value=value, fix="Leave it out"
            )

        if self._is_queue and partitions != 1:
            raise ConfigurationError(
                "a queue has no partitions", field="partitions", value=partitions, fix="Leave it out, or use kind=log"
            )

        self._broker.create_topic(name, partitions)

    async def delete_topic(self, name: str) -> None:
        await checkpoint()
        self._broker.delete_topic(name)

    async def topics(self) -> Mapping[str, int]:
        await checkpoint()
        return self._broker.topics()
