"""Promises 2 to 4 of a subscription: fair, awake, bounded."""

# ruff: noqa: PLR2004  # numbers in a test are the example
from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import anyio

from rustmq_sdk.slots import Driver
from rustmq_sdk.testing.contracts.base import Contract, numbered
from rustmq_sdk.values import TopicPartition

KIB = 1024


class LogWaitingContract(Contract):
    """Tests how long a fetch takes, and how much it brings."""

    async def test_every_partition_is_served_within_one_round(self, driver: Driver, topic: str, group: str) -> None:
        tps = await self.create(driver, topic, 4)
        for tp in tps:
            await self.append(driver, topic, numbered(40), partition=tp.partition or 0)

        # How much a fetch may bring beyond what it is asked for is declared; with that allowed for, everybody with
        # records waiting is served once in as many fetches as there are partitions.
        async with self.log_member(driver, topic, group) as member:
            await member.owns(tps)
            while not member.received:
                await member.fetch(max_messages=2, max_wait=self.patience)

            for _ in range(3):
                before = Counter(record.tp for record in member.received)
                for _ in tps:
                    await member.fetch(max_messages=2, max_wait=self.patience)

                after = Counter(record.tp for record in member.received)
                assert all(after[tp] > before[tp] or after[tp] == 40 for tp in tps), (before, after)

    async def test_an_unwanted_partition_is_left_alone(self, driver: Driver, topic: str, group: str) -> None:
        tps = await self.create(driver, topic, 2)
        for tp in tps:
            await self.append(driver, topic, numbered(5), partition=tp.partition or 0)

        async with self.log_member(driver, topic, group) as member:
            await member.owns(tps)
            only = [member.assignment(tps[1])]
            while len(member.received) < 5:
                await member.fetch(only, max_wait=self.patience)

            assert {record.tp for record in member.received} == {tps[1]}
            await member.collect(10)
            assert member.payloads(tps[0]) == numbered(5), "what was not wanted for a while is not lost"

    async def test_a_waiting_fetch_returns_when_a_record_arrives(self, driver: Driver, topic: str, group: str) -> None:
        (tp,) = await self.create(driver, topic)
        async with self.log_member(driver, topic, group) as member:
            await member.owns([tp])
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._append_later, driver, tp)
                with anyio.fail_after(self.patience):
                    await member.fetch_until(lambda: bool(member.received))

    async def test_wake_ends_a_waiting_fetch(self, driver: Driver, topic: str, group: str) -> None:
        (tp,) = await self.create(driver, topic)
        async with self.log_member(driver, topic, group) as member:
            await member.owns([tp])
            await member.fetch(max_wait=0.05)  # lets the calls of the start pass by: from here on only a wake ends one
            for wanted in (member.wanted, []):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._wake_later, member.subscription.wake)
                    with anyio.fail_after(self.patience):
                        assert not await member.fetch(wanted, max_wait=self.patience * 100)

    async def test_wake_before_a_fetch_ends_the_next_one(self, driver: Driver, topic: str, group: str) -> None:
        (tp,) = await self.create(driver, topic)
        async with self.log_member(driver, topic, group) as member:
            await member.owns([tp])
            await member.fetch(max_wait=0.05)  # lets the calls of the start pass by: from here on only a wake ends one
            member.subscription.wake()
            with anyio.fail_after(self.patience):
                assert not await member.fetch(max_wait=self.patience * 100)

    async def test_a_change_of_assignment_ends_a_waiting_fetch(self, driver: Driver, topic: str, group: str) -> None:
        tps = await self.create(driver, topic, 2)
        async with self.log_member(driver, topic, group) as first:
            await first.owns(tps)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._join_for_a_while, driver, topic, group)
                with anyio.fail_after(self.patience * 2):
                    while len(first.listener.assignments) == len(tps):
                        await first.fetch(max_wait=self.patience * 100)

    async def test_a_fetch_waits_no_longer_than_told(self, driver: Driver, topic: str, group: str) -> None:
        (tp,) = await self.create(driver, topic)
        async with self.log_member(driver, topic, group) as member:
            await member.owns([tp])
            for wanted in (member.wanted, []):
                with anyio.fail_after(self.patience):
                    assert not await member.fetch(wanted, max_wait=0.05)

    async def test_a_fetch_brings_no_more_messages_than_asked(self, driver: Driver, topic: str, group: str) -> None:
        tps = await self.create(driver, topic, 2)
        for tp in tps:
            await self.append(driver, topic, numbered(30), partition=tp.partition or 0)

        limit = 10 + driver.capabilities.overshoot_messages
        async with self.log_member(driver, topic, group) as member:
            await member.owns(tps)
            while len(member.received) < 60:
                pieces = await member.fetch(max_messages=10, max_wait=self.patience)
                assert sum(len(piece.records) + len(piece.broken) for piece in pieces) <= limit

    async def test_a_fetch_brings_no_more_bytes_than_asked(self, driver: Driver, topic: str, group: str) -> None:
        tps = await self.create(driver, topic, 2)
        for tp in tps:
            await self.append(driver, topic, [bytes(KIB)] * 30, partition=tp.partition or 0)

        limit = 10 * KIB + driver.capabilities.overshoot_bytes
        async with self.log_member(driver, topic, group) as member:
            await member.owns(tps)
            while len(member.received) < 60:
                before = len(member.received)
                pieces = await member.fetch(max_bytes=10 * KIB, max_wait=self.patience)
                payload = sum(len(record.payload or b"") for record in member.received[before:])
                assert payload <= limit
                assert sum(piece.size for piece in pieces) >= payload, "size covers all payloads"

    async def test_one_message_larger_than_the_limit_gets_through(self, driver: Driver, topic: str, group: str) -> None:
        (tp,) = await self.create(driver, topic)
        await self.append(driver, topic, [bytes(50 * KIB), b"small", bytes(50 * KIB)])
        async with self.log_member(driver, topic, group) as member:
            await member.owns([tp])
            with anyio.fail_after(self.patience):
                while len(member.received) < 3:
                    await member.fetch(max_bytes=KIB, max_wait=self.patience)

            assert [len(record.payload or b"") for record in member.received] == [50 * KIB, 5, 50 * KIB]

    async def _append_later(self, driver: Driver, tp: TopicPartition) -> None:
        await anyio.wait_all_tasks_blocked()
        await self.append(driver, tp.topic, [b"late"], partition=tp.partition or 0)

    async def _wake_later(self, wake: Callable[[], None]) -> None:
        await anyio.wait_all_tasks_blocked()
        wake()

    async def _join_for_a_while(self, driver: Driver, topic: str, group: str) -> None:
        async with self.log_member(driver, topic, group) as second:
            await second.listener.until(lambda: bool(second.listener.assignments), self.patience)
