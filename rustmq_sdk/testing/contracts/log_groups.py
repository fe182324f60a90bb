"""Groups: members share partitions and move them, and whoever lost one cannot move its position any more."""

# ruff: noqa: ARG001, PLR2004  # numbers in a test are the example; hooks to override ignore their arguments
from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AsyncExitStack

import anyio
import pytest

from rustmq_sdk.errors import Unsupported
from rustmq_sdk.slots import Driver, LogSubscription
from rustmq_sdk.testing.contracts.base import Contract, numbered
from rustmq_sdk.testing.contracts.subscriber import Subscriber
from rustmq_sdk.values import Assignment, Checkpoint, CommitOutcome, TopicPartition

COMMITTED, FENCED = CommitOutcome.COMMITTED, CommitOutcome.FENCED


class LogGroupsContract(Contract):
    """Tests which member of a group has which partition, and from when on."""

    cooperative: bool = False
    """Whether members keep what need not move. Eager rebalances revoke everything and give most of it back."""

    async def expire(self, driver: Driver, group: str) -> None:
        """Takes everything from the oldest member without asking. To be overridden where that can be done."""
        raise NotImplementedError

    async def rebalance(self, driver: Driver, group: str) -> None:
        """Makes every member give up everything and get it back. To be overridden where that can be done."""
        raise NotImplementedError

    async def test_one_member_has_everything(self, driver: Driver, topic: str, group: str) -> None:
        tps = await self.create(driver, topic, 5)
        async with self.log_member(driver, topic, group) as member:
            await member.owns(tps)

    async def test_a_reader_without_a_group_has_everything_and_no_position(self, driver: Driver, topic: str) -> None:
        (tp,) = await self.create(driver, topic)
        await self.append(driver, topic, numbered(3))
        async with self.log_member(driver, topic, None) as one, self.log_member(driver, topic, None) as other:
            for member in (one, other):
                await member.owns([tp])
                await member.collect(3)

            with pytest.raises(Unsupported):
                await one.subscription.commit({one.assignment(tp): Checkpoint(1)})

    async def test_two_members_share_the_partitions(self, driver: Driver, topic: str, group: str) -> None:
        tps = await self.create(driver, topic, 4)
        async with self.log_member(driver, topic, group) as first, self.log_member(driver, topic, group) as second:
            await self.shared(tps, [first, second])
            assert len(first.listener.assignments) == len(second.listener.assignments) == 2

    async def test_more_members_than_partitions_do_no_harm(self, driver: Driver, topic: str, group: str) -> None:
        (tp,) = await self.create(driver, topic)
        async with AsyncExitStack() as stack:
            members = [await stack.enter_async_context(self.log_member(driver, topic, group)) for _ in range(3)]
            await self.shared([tp], members)
            await self.append(driver, topic, numbered(5))
            (owner,) = [member for member in members if member.listener.assignments]
            await owner.collect(5)

    async def test_a_leaving_member_gives_everything_back(self, driver: Driver, topic: str, group: str) -> None:
        tps = await self.create(driver, topic, 4)
        async with self.log_member(driver, topic, group) as first:
            async with self.log_member(driver, topic, group) as second:
                await self.shared(tps, [first, second])

            await self.shared(tps, [first])

    async def test_what_need_not_move_stays(self, driver: Driver, topic: str, group: str) -> None:
        if not self.cooperative:
            pytest.skip("the suite says that this driver rebalances eagerly")

        tps = await self.create(driver, topic, 4)
        async with self.log_member(driver, topic, group) as first:
            await first.owns(tps)
            before = dict(first.listener.assignments)
            async with self.log_member(driver, topic, group) as second:
                await self.shared(tps, [first, second])
                for tp, assignment in first.listener.assignments.items():
                    assert assignment is before[tp], "kept without a call"

                revoked = [tp for call in first.listener.calls if call.name == "revoking" for tp in call.partitions]
                assert sorted(revoked) == sorted(second.listener.assignments)

    async def test_a_partition_moves_only_after_revoking_returned(self, driver: Driver, topic: str, group: str) -> None:
        tps = await self.create(driver, topic, 2)
        drained = anyio.Event()
        budgets: list[float] = []

        async def drain(assignments: Collection[Assignment], budget: float) -> None:
            budgets.append(budget)
            await drained.wait()

        async with self.log_member(driver, topic, group, on_revoking=drain) as first:
            await first.owns(tps)
            async with self.log_member(driver, topic, group) as second, anyio.create_task_group() as tasks:
                tasks.start_soon(self.keep_fetching, [first, second])
                await _until(lambda: bool(budgets), self.patience)
                with anyio.move_on_after(0.2):
                    await second.listener.until(lambda: bool(second.listener.assignments), self.patience)

                assert not second.listener.assignments, "somebody else got it while it was still being drained"
                drained.set()
                first.listener.on_revoking = None
                await second.listener.until(lambda: bool(second.listener.assignments), self.patience)
                tasks.cancel_scope.cancel()

        assert all(0 < budget <= self.revoke_budget for budget in budgets), budgets

    async def test_commits_count_until_revoking_returns(self, driver: Driver, topic: str, group: str) -> None:
        tps = await self.create(driver, topic, 2)
        outcomes: list[CommitOutcome] = []

        async def commit(assignments: Collection[Assignment], budget: float) -> None:
            written = await first.subscription.commit({assignment: Checkpoint(7) for assignment in assignments})
            outcomes.extend(written.values())

        async with self.log_member(driver, topic, group) as first:
            await first.owns(tps)
            first.listener.on_revoking = commit
            async with self.log_member(driver, topic, group) as second:
                await self.shared(tps, [first, second])
                assert outcomes
                assert set(outcomes) == {COMMITTED}
                moved = list(second.listener.assignments)
                assert await second.subscription.committed(moved) == {tp: Checkpoint(7) for tp in moved}

    async def test_a_moved_partition_is_fenced(self, driver: Driver, topic: str, group: str) -> None:
        tps = await self.create(driver, topic, 2)
        async with self.log_member(driver, topic, group) as first:
            await first.owns(tps)
            before = dict(first.listener.assignments)
            async with self.log_member(driver, topic, group) as second:
                await self.shared(tps, [first, second])
                (moved,) = second.listener.assignments
                await second.subscription.commit({second.assignment(moved): Checkpoint(3)})
                await first.listener.until(lambda: before[moved] in first.listener.gone, self.patience)
                assert await first.subscription.commit({before[moved]: Checkpoint(9)}) == {before[moved]: FENCED}
                assert await second.subscription.committed([moved]) == {moved: Checkpoint(3)}

    async def test_what_was_revoked_is_lost_or_comes_back(self, driver: Driver, topic: str, group: str) -> None:
        tps = await self.create(driver, topic, 4)
        async with self.log_member(driver, topic, group) as first:
            await first.owns(tps)
            async with self.log_member(driver, topic, group) as second:
                await self.shared(tps, [first, second])
                await first.listener.until(lambda: not first.listener.released, self.patience)
                assert {assignment.tp for assignment in first.listener.gone} >= set(second.listener.assignments)

    async def test_an_expired_member_is_told_and_fenced(self, driver: Driver, topic: str, group: str) -> None:
        self.needs("expire")
        (tp,) = await self.create(driver, topic)
        async with self.log_member(driver, topic, group) as first:
            await first.owns([tp])
            before = first.assignment(tp)
            await self.expire(driver, group)
            assert await first.subscription.commit({before: Checkpoint(9)}) == {before: FENCED}
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.keep_fetching, [first])
                await first.listener.until(lambda: before in first.listener.gone, self.patience)
                await first.owns([tp])
                tasks.cancel_scope.cancel()

            assert first.assignment(tp) is not before
            assert await first.subscription.committed([tp]) == {tp: None}

    async def test_an_eager_rebalance_gives_everything_back_in_the_next_generation(
        self, driver: Driver, topic: str, group: str
    ) -> None:
        self.needs("rebalance")
        tps = await self.create(driver, topic, 4)
        async with self.log_member(driver, topic, group) as first, self.log_member(driver, topic, group) as second:
            members = [first, second]
            await self.shared(tps, members)
            owners = [set(member.listener.assignments) for member in members]
            for member in members:
                member.listener.calls.clear()

            await self.rebalance(driver, group)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.keep_fetching, members)
                await _until(lambda: all(len(member.listener.calls) >= 2 for member in members), self.patience)

                tasks.cancel_scope.cancel()

            assert [set(member.listener.assignments) for member in members] == owners
            assert all([call.name for call in m.listener.calls] == ["revoking", "assigned"] for m in members)

    async def test_generations_grow_with_every_change_of_owner(self, driver: Driver, topic: str, group: str) -> None:
        (tp,) = await self.create(driver, topic)
        generations: list[int | None] = []
        for _ in range(3):
            async with self.log_member(driver, topic, group) as member:
                await member.owns([tp])
                generations.append(member.listener.calls[0].generation)

        if not driver.capabilities.fences:
            assert generations == [None] * 3
            return

        known = [generation for generation in generations if generation is not None]
        assert len(known) == 3
        assert known == sorted(set(known)), known

    async def test_every_record_is_committed_or_delivered_again_when_partitions_move(
        self, driver: Driver, topic: str, group: str
    ) -> None:
        tps = await self.create(driver, topic, 4)
        for tp in tps:
            await self.append(driver, topic, numbered(60, f"{tp.partition}-"), partition=tp.partition or 0)

        handled: set[bytes | None] = set()
        async with self.log_member(driver, topic, group) as first:
            await first.owns(tps)
            await self._work(first, 30)
            handled |= set(first.payloads())
            async with self.log_member(driver, topic, group) as second:
                await self.shared(tps, [first, second])
                await self._work(second, 30)
                handled |= set(second.payloads())

            await self.shared(tps, [first])
            with anyio.fail_after(self.patience):
                while len(handled) < 240:
                    await self._work(first, 50)
                    handled |= set(first.payloads())

        assert len(handled) == 240

    async def shared(self, tps: Sequence[TopicPartition], members: Sequence[Subscriber[LogSubscription]]) -> None:
        """Fetches with all members until each partition has one owner and nobody has two more than another."""

        def even() -> bool:
            owned = [tp for member in members for tp in member.listener.assignments]
            loads = [len(member.listener.assignments) for member in members]
            return sorted(owned) == sorted(tps) and max(loads) - min(loads) <= 1

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.keep_fetching, members)
            await _until(even, self.patience)
            tasks.cancel_scope.cancel()

    async def keep_fetching(self, members: Sequence[Subscriber[LogSubscription]]) -> None:
        """Keeps memberships alive, as the runtime does while it wants nothing."""
        async with anyio.create_task_group() as tasks:
            for member in members:
                tasks.start_soon(_keep_alive, member)

    async def _work(self, member: Subscriber[LogSubscription], at_least: int) -> None:
        """Fetches some records and commits the positions after all of them."""
        before = len(member.received)
        while len(member.received) < before + at_least:
            pieces = await member.fetch(max_messages=20, max_wait=0.05)
            reached = {piece.assignment: Checkpoint(piece.next_offset) for piece in pieces}
            if not pieces:
                return

            await member.subscription.commit(reached)


async def _keep_alive(member: Subscriber[LogSubscription]) -> None:
    while True:
        await member.subscription.fetch([], max_messages=1, max_bytes=1, max_wait=0.05)


async def _until(condition: Callable[[], bool], within: float) -> None:
    with anyio.fail_after(within):
        while not condition():  # noqa: ASYNC110  # about several listeners at once, which have no common event
            await anyio.sleep(0.005)
