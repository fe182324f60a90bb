"""The promises of a sink: durable on return, in order, once."""

# ruff: noqa: PLR2004  # numbers in a test are the example
from __future__ import annotations

from collections.abc import Sequence

import anyio
import pytest

from rustmq_sdk.errors import UnknownTopic
from rustmq_sdk.slots import Driver
from rustmq_sdk.testing.contracts.base import Contract, numbered
from rustmq_sdk.testing.contracts.subscriber import Received
from rustmq_sdk.values import OutgoingMessage, ProducerSequence, SentMessage, TopicPartition


class SinkContract(Contract):
    """Tests what :class:`~rustmq_sdk.slots.Sink` promises, and reads back by the driver's own source."""

    async def read_back(self, driver: Driver, topic: str, group: str, count: int) -> Sequence[Received]:
        """Returns the first ``count`` records of a topic, and looks whether there are more."""
        member_of = self.log_member if driver.capabilities.kind == "log" else self.queue_member
        async with member_of(driver, topic, group) as member:
            await member.listener.until(lambda: bool(member.listener.assignments), self.patience)
            await member.collect(count)
            await member.fetch(max_wait=0.05)
            return member.received

    async def test_partitions_tells_their_number(self, driver: Driver, topic: str) -> None:
        partitions = 3 if driver.capabilities.kind == "log" else 1
        await self.create(driver, topic, partitions)
        assert await driver.sink().partitions(topic) == partitions

    async def test_an_unknown_topic_is_created_or_refused(self, driver: Driver, topic: str) -> None:
        if self.creates_topics:
            assert await driver.sink().partitions(topic) >= 1
            assert topic in await driver.admin().topics()
            return

        with pytest.raises(UnknownTopic):
            await driver.sink().partitions(topic)

    async def test_a_partition_that_does_not_exist_is_refused(self, driver: Driver, topic: str) -> None:
        await self.create(driver, topic)
        with pytest.raises(UnknownTopic):
            await self.append(driver, topic, [b"x"], partition=7)

    async def test_an_append_answers_where_each_message_is(self, driver: Driver, topic: str, group: str) -> None:
        await self.create(driver, topic)
        sent = await self.append(driver, topic, numbered(5))
        assert [message.topic for message in sent] == [topic] * 5
        if driver.capabilities.kind == "log":
            assert [message.partition for message in sent] == [0] * 5
            offsets = [message.offset for message in sent if message.offset is not None]
            assert offsets == sorted(set(offsets))
            assert len(offsets) == 5
            records = await self.read_back(driver, topic, group, 5)
            assert [record.offset for record in records] == offsets

        assert all(message.timestamp > 1_500_000_000_000 for message in sent), "milliseconds since the epoch"

    async def test_messages_of_one_append_keep_their_order(self, driver: Driver, topic: str, group: str) -> None:
        await self.create(driver, topic)
        await self.append(driver, topic, numbered(200))
        records = await self.read_back(driver, topic, group, 200)
        assert [record.payload for record in records] == numbered(200)

    async def test_an_append_is_durable_when_it_returns(self, driver: Driver, topic: str, group: str) -> None:
        await self.create(driver, topic)
        for number in range(3):
            await self.append(driver, topic, [b"%d" % number])
            records = await self.read_back(driver, topic, f"{group}-{number}", number + 1)
            assert [record.payload for record in records] == [b"%d" % earlier for earlier in range(number + 1)]

    async def test_an_append_of_nothing_does_nothing(self, driver: Driver, topic: str, group: str) -> None:
        await self.create(driver, topic)
        assert not await self.append(driver, topic, [])
        await self.append(driver, topic, [b"only"])
        assert [record.payload for record in await self.read_back(driver, topic, group, 1)] == [b"only"]

    async def test_concurrent_appends_lose_nothing_and_keep_each_ones_order(
        self, driver: Driver, topic: str, group: str
    ) -> None:
        await self.create(driver, topic)

        async def write(writer: int) -> None:
            for number in range(10):
                await self.append(driver, topic, [b"%d-%d-%d" % (writer, number, half) for half in (0, 1)])

        async with anyio.create_task_group() as tasks:
            for writer in range(4):
                tasks.start_soon(write, writer)

        payloads = [record.payload or b"" for record in await self.read_back(driver, topic, group, 80)]
        for writer in range(4):
            mine = [payload for payload in payloads if payload.startswith(b"%d-" % writer)]
            assert mine == [b"%d-%d-%d" % (writer, number, half) for number in range(10) for half in (0, 1)]

    async def test_a_repeated_sequence_is_stored_once(self, driver: Driver, topic: str, group: str) -> None:
        if not driver.capabilities.idempotent_append:
            pytest.skip("this driver does not claim idempotent_append")

        await self.create(driver, topic)
        first = await self._numbered_append(driver, topic, b"p", 0, 2)
        second = await self._numbered_append(driver, topic, b"p", 2, 1)
        assert list(await self._numbered_append(driver, topic, b"p", 0, 2)) == list(first)
        assert list(await self._numbered_append(driver, topic, b"p", 2, 1)) == list(second)
        await self._numbered_append(driver, topic, b"p", 3, 1)
        records = await self.read_back(driver, topic, group, 4)
        assert [record.payload for record in records] == [b"p0", b"p1", b"p2", b"p3"]

    async def test_sequences_of_producers_and_partitions_are_their_own(
        self, driver: Driver, topic: str, group: str
    ) -> None:
        if not driver.capabilities.idempotent_append or driver.capabilities.kind == "queue":
            pytest.skip("this driver does not claim idempotent_append, or has no partitions")

        await self.create(driver, topic, 2)
        await self._numbered_append(driver, topic, b"p", 0, 1)
        await self._numbered_append(driver, topic, b"q", 0, 1)
        await self._numbered_append(driver, topic, b"p", 0, 1, partition=1)
        records = await self.read_back(driver, topic, group, 3)
        stored = {(record.tp, record.payload) for record in records}
        assert stored == {
            (TopicPartition(topic, 0), b"p0"),
            (TopicPartition(topic, 0), b"q0"),
            (TopicPartition(topic, 1), b"p0"),
        }

    async def test_without_a_sequence_every_append_is_stored(self, driver: Driver, topic: str, group: str) -> None:
        await self.create(driver, topic)
        for _ in range(2):
            await self.append(driver, topic, [b"same"])

        assert [record.payload for record in await self.read_back(driver, topic, group, 2)] == [b"same"] * 2

    async def _numbered_append(
        self, driver: Driver, topic: str, producer: bytes, first: int, count: int, *, partition: int = 0
    ) -> Sequence[SentMessage]:
        messages = [OutgoingMessage(b"%s%d" % (producer, number)) for number in range(first, first + count)]
        return await driver.sink().append(topic, partition, messages, sequence=ProducerSequence(producer, first))
