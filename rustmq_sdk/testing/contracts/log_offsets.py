"""Promises 5 and 6 of a log: commits are durable and fenced, a checkpoint comes back as written. And moving about."""

# ruff: noqa: PLR2004  # numbers in a test are the example
from __future__ import annotations

import pytest

from rustmq_sdk.errors import Unsupported
from rustmq_sdk.slots import Driver
from rustmq_sdk.testing.contracts.base import Contract, ago, numbered
from rustmq_sdk.values import Assignment, Checkpoint, CommitOutcome, OutgoingMessage

COMMITTED, FENCED = CommitOutcome.COMMITTED, CommitOutcome.FENCED


class LogOffsetsContract(Contract):
    """Tests committed positions, the ends of a log, and seeking."""

    async def test_nothing_is_committed_at_first(self, driver: Driver, topic: str, group: str) -> None:
        (tp,) = await self.create(driver, topic)
        async with self.log_member(driver, topic, group) as member:
            await member.owns([tp])
            assert await member.subscription.committed([tp]) == {tp: None}

    async def test_a_checkpoint_comes_back_as_it_was_written(self, driver: Driver, topic: str, group: str) -> None:
        tps = await self.create(driver, topic, 2)
        room = driver.capabilities.checkpoint_room
        extra = (bytes(range(256)) * 16)[: 4096 if room is None else room]
        written = {tps[0]: Checkpoint(0, extra), tps[1]: Checkpoint(7, b"")}
        async with self.log_member(driver, topic, group) as member:
            await member.owns(tps)
            outcomes = await member.subscription.commit({member.assignment(tp): written[tp] for tp in tps})
            assert outcomes == {member.assignment(tp): COMMITTED for tp in tps}
            assert await member.subscription.committed(tps) == written

        async with self.log_member(driver, topic, group) as successor:
            await successor.owns(tps)
            assert await successor.subscription.committed(tps) == written

    async def test_a_position_may_move_forward_and_back(self, driver: Driver, topic: str, group: str) -> None:
        (tp,) = await self.create(driver, topic)
        await self.append(driver, topic, numbered(10))
        async with self.log_member(driver, topic, group) as member:
            await member.owns([tp])
            for offset in (3, 9, 1):
                assert await member.subscription.commit({member.assignment(tp): Checkpoint(offset)}) == {
                    member.assignment(tp): COMMITTED
                }
                assert await member.subscription.committed([tp]) == {tp: Checkpoint(offset)}

    async def test_a_successor_starts_where_the_position_is(self, driver: Driver, topic: str, group: str) -> None:
        (tp,) = await self.create(driver, topic)
        sent = await self.append(driver, topic, numbered(10))
        position = sent[4].offset
        assert position is not None
        async with self.log_member(driver, topic, group) as member:
            await member.owns([tp])
            await member.collect(10)
            await member.subscription.commit({member.assignment(tp): Checkpoint(position)})

        async with self.log_member(driver, topic, group) as successor:
            await successor.owns([tp])
            await successor.collect(6)
            assert successor.payloads() == numbered(10)[4:]

    async def test_groups_have_positions_of_their_own(self, driver: Driver, topic: str, group: str) -> None:
        (tp,) = await self.create(driver, topic)
        await self.append(driver, topic, numbered(3))
        async with (
            self.log_member(driver, topic, group) as one,
            self.log_member(driver, topic, group + "-other") as other,
        ):
            await one.owns([tp])
            await other.owns([tp])
            await one.collect(3)
            await other.collect(3)
            await one.subscription.commit({one.assignment(tp): Checkpoint(3)})
            assert await other.subscription.committed([tp]) == {tp: None}

    async def test_a_commit_under_an_unknown_assignment_is_fenced(self, driver: Driver, topic: str, group: str) -> None:
        (tp,) = await self.create(driver, topic)
        async with self.log_member(driver, topic, group) as member:
            await member.owns([tp])
            stranger = Assignment(tp, 0)
            assert await member.subscription.commit({stranger: Checkpoint(5)}) == {stranger: FENCED}
            assert await member.subscription.committed([tp]) == {tp: None}

    async def test_start_and_end_offsets(self, driver: Driver, topic: str, group: str) -> None:
        tps = await self.create(driver, topic, 2)
        sent = await self.append(driver, topic, numbered(5))
        async with self.log_member(driver, topic, group) as member:
            await member.owns(tps)
            starts = await member.subscription.start_offsets(tps)
            ends = await member.subscription.end_offsets(tps)
            assert starts[tps[0]] == sent[0].offset
            assert sent[-1].offset is not None
            assert ends[tps[0]] > sent[-1].offset
            assert ends[tps[1]] == starts[tps[1]], "an empty partition ends where it starts"
            if driver.capabilities.dense_offsets:
                assert ends[tps[0]] - starts[tps[0]] == 5

    async def test_offsets_are_found_by_time(self, driver: Driver, topic: str, group: str) -> None:
        (tp,) = await self.create(driver, topic)
        first = ago(60)
        times = [first, first + 1000, first + 2000]
        sent = await self.append(driver, topic, [OutgoingMessage(b"x", timestamp=time) for time in times])
        async with self.log_member(driver, topic, group) as member:
            await member.owns([tp])
            find = member.subscription.offsets_at
            if not driver.capabilities.offsets_at:
                with pytest.raises(Unsupported):
                    await find([tp], first)

                return

            assert await find([tp], 0) == {tp: sent[0].offset}
            assert await find([tp], first + 1000) == {tp: sent[1].offset}
            assert await find([tp], first + 1001) == {tp: sent[2].offset}
            assert await find([tp], first + 2001) == await member.subscription.end_offsets([tp])

    @pytest.mark.parametrize("target", [1, 8])
    async def test_a_seek_moves_the_fetch_position(self, driver: Driver, topic: str, group: str, target: int) -> None:
        (tp,) = await self.create(driver, topic)
        sent = await self.append(driver, topic, numbered(10))
        offset = sent[target].offset
        assert offset is not None
        async with self.log_member(driver, topic, group) as member:
            await member.owns([tp])
            await member.fetch(max_messages=4, max_wait=self.patience)
            old, new = member.assignment(tp), Assignment(tp, None)
            if not driver.capabilities.seek:
                with pytest.raises(Unsupported):
                    member.subscription.seek(old, new, offset)

                return

            member.subscription.seek(old, new, offset)
            member.listener.assignments[tp] = new
            member.received.clear()
            await member.collect(10 - target)
            assert member.payloads() == numbered(10)[target:]
            assert await member.subscription.commit({old: Checkpoint(2)}) == {old: FENCED}, "dead since the seek"
            assert await member.subscription.commit({new: Checkpoint(5)}) == {new: COMMITTED}

    async def test_a_seek_to_the_end_gets_what_is_sent_next(self, driver: Driver, topic: str, group: str) -> None:
        if not driver.capabilities.seek:
            pytest.skip("this driver does not claim seek")

        (tp,) = await self.create(driver, topic)
        await self.append(driver, topic, numbered(5))
        async with self.log_member(driver, topic, group) as member:
            await member.owns([tp])
            end = (await member.subscription.end_offsets([tp]))[tp]
            old, new = member.assignment(tp), Assignment(tp, None)
            member.subscription.seek(old, new, end)
            member.listener.assignments[tp] = new
            await self.append(driver, topic, numbered(3, "next"))
            await member.collect(3)
            assert member.payloads() == numbered(3, "next")

    async def test_records_of_a_dead_assignment_are_not_fetched(self, driver: Driver, topic: str, group: str) -> None:
        if not driver.capabilities.seek:
            pytest.skip("this driver does not claim seek")

        (tp,) = await self.create(driver, topic)
        sent = await self.append(driver, topic, numbered(3))
        start = sent[0].offset
        assert start is not None
        async with self.log_member(driver, topic, group) as member:
            await member.owns([tp])
            old, new = member.assignment(tp), Assignment(tp, None)
            member.subscription.seek(old, new, start)
            assert not await member.fetch([old], max_wait=0.05)
            member.listener.assignments[tp] = new
            await member.collect(3)
            assert {piece.assignment for piece in member.pieces} == {new}
