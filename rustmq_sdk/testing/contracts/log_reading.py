"""Promise 1 of a subscription, nothing is skipped, and what a record is made of."""

# ruff: noqa: PLR2004  # numbers in a test are the example; hooks to override ignore their arguments
from __future__ import annotations

from collections.abc import Sequence

import anyio
import pytest

from rustmq_sdk.errors import RustMQError, UnknownTopic, Unsupported
from rustmq_sdk.slots import Driver, Fetched
from rustmq_sdk.testing.contracts.base import Contract, ago, numbered
from rustmq_sdk.testing.contracts.subscriber import unpack
from rustmq_sdk.values import OutgoingMessage, TopicPartition


class LogReadingContract(Contract):
    """Tests that what is appended is what is fetched: all of it, once, in order."""

    reads_ahead: bool = False
    """Whether the client may have read ahead, and so delivers records that were deleted in the meantime."""

    def truncate(self, driver: Driver, tp: TopicPartition, before: int) -> None:
        """Removes the records below ``before``. To be overridden where that can be done."""
        raise NotImplementedError

    def leave_a_gap(self, driver: Driver, tp: TopicPartition) -> None:
        """Leaves offsets at the end without records. To be overridden where that can be done."""
        raise NotImplementedError

    def append_broken(self, driver: Driver, tp: TopicPartition, raw: bytes) -> None:
        """Appends a record that cannot be decoded. To be overridden where there are such."""
        raise NotImplementedError

    async def test_every_record_arrives_once_and_in_order(self, driver: Driver, topic: str, group: str) -> None:
        tps = await self.create(driver, topic, 3)
        for tp in tps:
            await self.append(driver, topic, numbered(100, str(tp.partition)), partition=tp.partition or 0)

        async with self.log_member(driver, topic, group) as member:
            await member.owns(tps)
            await member.fetch_until(lambda: len(member.received) >= 300)
            await member.fetch(max_wait=0.05)

        for tp in tps:
            mine = [record for record in member.received if record.tp == tp]
            offsets = [record.offset for record in mine if record.offset is not None]
            assert [record.payload for record in mine] == numbered(100, str(tp.partition))
            assert offsets == sorted(set(offsets)), "offsets increase"

        check_pieces(member.pieces)

    async def test_a_fetch_in_small_pieces_returns_the_same(self, driver: Driver, topic: str, group: str) -> None:
        (tp,) = await self.create(driver, topic)
        await self.append(driver, topic, numbered(50))
        async with self.log_member(driver, topic, group) as member:
            await member.owns([tp])
            while len(member.received) < 50:
                assert await member.fetch(max_messages=7, max_wait=self.patience)

            assert member.payloads() == numbered(50)

        check_pieces(member.pieces)

    async def test_reading_starts_where_assigned_said(self, driver: Driver, topic: str, group: str) -> None:
        (tp,) = await self.create(driver, topic)
        sent = await self.append(driver, topic, numbered(10))
        start = sent[6].offset
        assert start is not None
        async with self.log_member(driver, topic, group, starts={tp: start}) as member:
            await member.owns([tp])
            await member.collect(4)
            assert member.payloads() == numbered(10)[6:]

    async def test_records_appended_while_reading_arrive(self, driver: Driver, topic: str, group: str) -> None:
        tps = await self.create(driver, topic, 2)

        async def write(tp: TopicPartition) -> None:
            for number in range(20):
                await self.append(driver, topic, [b"%d" % number], partition=tp.partition or 0)

        async with self.log_member(driver, topic, group) as member:
            await member.owns(tps)
            async with anyio.create_task_group() as tasks:
                for tp in tps:
                    tasks.start_soon(write, tp)

                await member.collect(40)

        for tp in tps:
            assert member.payloads(tp) == [b"%d" % number for number in range(20)]

    async def test_a_cancelled_fetch_loses_nothing(self, driver: Driver, topic: str, group: str) -> None:
        (tp,) = await self.create(driver, topic)
        async with self.log_member(driver, topic, group) as member:
            await member.owns([tp])
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(member.fetch_until, lambda: False)
                await anyio.wait_all_tasks_blocked()
                await self.append(driver, topic, numbered(5))
                tasks.cancel_scope.cancel()

            await member.collect(5)
            assert member.payloads() == numbered(5)

    async def test_a_record_comes_back_as_it_was_sent(self, driver: Driver, topic: str, group: str) -> None:
        (tp,) = await self.create(driver, topic)
        headers = (("b", b"\x00\xff"), ("a", b""), ("b", None), ("ü", "ö".encode()))
        sent = OutgoingMessage(bytes(range(256)), b"\xff\x00key", headers, timestamp=ago(60) + 123)
        (stored,) = await self.append(driver, topic, [sent])
        async with self.log_member(driver, topic, group) as member:
            await member.owns([tp])
            (record,) = await member.collect(1)

        assert (record.payload, record.key) == (sent.payload, sent.key)
        assert list(record.headers) == list(headers), "in order, with repeated names and null values"
        assert record.timestamp == stored.timestamp == sent.timestamp
        assert record.offset == stored.offset

    async def test_an_empty_payload_is_not_a_missing_one(self, driver: Driver, topic: str, group: str) -> None:
        (tp,) = await self.create(driver, topic)
        await self.append(driver, topic, [b"", None, OutgoingMessage(b"", b""), OutgoingMessage(None, None)])
        async with self.log_member(driver, topic, group) as member:
            await member.owns([tp])
            records = await member.collect(4)

        assert [record.payload for record in records] == [b"", None, b"", None]
        assert [record.key for record in records] == [None, None, b"", None]

    async def test_a_large_record_comes_whole(self, driver: Driver, topic: str, group: str) -> None:
        (tp,) = await self.create(driver, topic)
        large = bytes(range(256)) * 3000
        await self.append(driver, topic, [b"before", large, b"after"])
        async with self.log_member(driver, topic, group) as member:
            await member.owns([tp])
            await member.collect(3)
            assert member.payloads() == [b"before", large, b"after"]

    async def test_a_topic_of_any_name_works_or_is_refused(self, driver: Driver, topic: str, group: str) -> None:
        name = f"Größe ☃ {topic}"
        try:
            (tp,) = await self.create(driver, name)
        except RustMQError:
            return

        await self.append(driver, name, [b"x"])
        async with self.log_member(driver, name, group) as member:
            await member.owns([tp])
            (record,) = await member.collect(1)
            assert record.tp == TopicPartition(name, 0)

    async def test_a_topic_that_does_not_exist_is_waited_for(self, driver: Driver, topic: str, group: str) -> None:
        if not self.creates_topics:
            with pytest.raises(UnknownTopic):
                await self._read_one(driver, topic, group)

            return

        async with self.log_member(driver, topic, group) as member:
            assert not await member.fetch(max_wait=0.05)
            await member.misses([topic])
            await self.append(driver, topic, [b"first"])
            await member.owns([TopicPartition(topic, 0)])
            await member.misses([])
            await member.collect(1)
            assert member.payloads() == [b"first"]

    async def test_a_gap_between_offsets_is_passed(self, driver: Driver, topic: str, group: str) -> None:
        self.needs("leave_a_gap")
        (tp,) = await self.create(driver, topic)
        await self.append(driver, topic, numbered(2))
        self.leave_a_gap(driver, tp)
        sent = await self.append(driver, topic, [b"after"])
        self.leave_a_gap(driver, tp)
        async with self.log_member(driver, topic, group) as member:
            await member.owns([tp])
            await member.collect(3)
            end = (await member.subscription.end_offsets([tp]))[tp]
            await member.fetch_until(lambda: member.pieces[-1].next_offset == end)

        assert member.payloads() == [b"m0", b"m1", b"after"]
        assert member.received[-1].offset == sent[0].offset
        check_pieces(member.pieces)

    async def test_a_record_that_cannot_be_decoded_is_handed_over(self, driver: Driver, topic: str, group: str) -> None:
        self.needs("append_broken")
        (tp,) = await self.create(driver, topic)
        await self.append(driver, topic, [b"good"])
        self.append_broken(driver, tp, b"\xffbad")
        await self.append(driver, topic, [b"good too"])
        async with self.log_member(driver, topic, group) as member:
            await member.owns([tp])
            await member.fetch_until(lambda: sum(len(p.records) + len(p.broken) for p in member.pieces) >= 3)

        broken = [broken for piece in member.pieces for broken in piece.broken]
        assert [record.raw for record in broken] == [b"\xffbad"]
        assert isinstance(broken[0].error, Exception)
        assert member.payloads() == [b"good", b"good too"]
        assert broken[0].offset not in [record.offset for record in member.received]
        check_pieces(member.pieces)

    async def test_what_retention_took_is_named(self, driver: Driver, topic: str, group: str) -> None:
        self.needs("truncate")
        (tp,) = await self.create(driver, topic)
        sent = await self.append(driver, topic, numbered(10))
        first, kept = sent[0].offset, sent[6].offset
        assert first is not None
        assert kept is not None
        async with self.log_member(driver, topic, group, starts={tp: first}) as member:
            await member.owns([tp])
            self.truncate(driver, tp, kept)
            await member.collect(4)

        gone = [gone for piece in member.pieces for gone in piece.gone]
        if not gone and self.reads_ahead:
            assert member.payloads() == numbered(10), "it had read them before they went"
            return

        assert [(lost.tp, lost.first, lost.end) for lost in gone] == [(tp, first, kept)]
        assert gone[0].reason
        assert member.payloads() == numbered(10)[6:]

    async def test_single_offsets_are_read_again(self, driver: Driver, topic: str, group: str) -> None:
        (tp,) = await self.create(driver, topic)
        sent = await self.append(driver, topic, numbered(10))
        offsets = [message.offset for message in sent if message.offset is not None]
        async with self.log_member(driver, topic, group) as member:
            await member.owns([tp])
            await member.collect(3)
            assignment = member.assignment(tp)
            if not driver.capabilities.read:
                with pytest.raises(Unsupported):
                    await member.subscription.read(assignment, offsets[:1])

                return

            piece = await member.subscription.read(assignment, [offsets[1], offsets[2], offsets[7]])
            assert list(piece.offsets) == [offsets[1], offsets[2], offsets[7]]
            assert _payloads(piece) == [b"m1", b"m2", b"m7"]
            assert piece.assignment is assignment
            await member.collect(10)
            assert member.payloads() == numbered(10), "the fetch position did not move"

    async def test_reading_what_is_gone_says_so(self, driver: Driver, topic: str, group: str) -> None:
        self.needs("truncate")
        if not driver.capabilities.read:
            pytest.skip("this driver does not claim read")

        (tp,) = await self.create(driver, topic)
        sent = await self.append(driver, topic, numbered(6))
        offsets = [message.offset for message in sent if message.offset is not None]
        async with self.log_member(driver, topic, group) as member:
            await member.owns([tp])
            self.truncate(driver, tp, offsets[3])
            piece = await member.subscription.read(member.assignment(tp), [offsets[0], offsets[1], offsets[4]])

        assert _payloads(piece) == [b"m4"]
        lost = {offset for gone in piece.gone for offset in range(gone.first, gone.end)}
        assert lost >= {offsets[0], offsets[1]}
        assert offsets[4] not in lost

    async def _read_one(self, driver: Driver, topic: str, group: str) -> None:
        async with self.log_member(driver, topic, group) as member:
            await member.collect(1)


def check_pieces(pieces: Sequence[Fetched]) -> None:
    """Checks that the pieces of each partition follow each other without overlap."""
    reached: dict[TopicPartition, int] = {}
    for piece in pieces:
        seen = sorted([*piece.offsets, *(broken.offset for broken in piece.broken)])
        below = reached.get(piece.assignment.tp, 0)
        assert all(below <= offset < piece.next_offset for offset in seen), f"{seen} in {below}..{piece.next_offset}"
        assert list(piece.offsets) == sorted(set(piece.offsets)), "offsets increase"
        assert not set(piece.offsets) & {broken.offset for broken in piece.broken}
        assert piece.size >= 0
        assert piece.next_offset > below or not seen, "a piece with records moves on"
        reached[piece.assignment.tp] = piece.next_offset


def _payloads(piece: Fetched) -> list[bytes | None]:
    return [record.payload for record in unpack(piece)]
