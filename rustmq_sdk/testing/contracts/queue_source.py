"""The promises of a queue: leased, settled, and fetched like any source."""

# ruff: noqa: PLR2004  # numbers in a test are the example
from __future__ import annotations

from collections.abc import Sequence

import anyio
import pytest

from rustmq_sdk.slots import Ack, Driver, Nack, QueueSubscription, Receipt, SettleOutcome, Term
from rustmq_sdk.testing.contracts.base import Contract, numbered
from rustmq_sdk.testing.contracts.subscriber import Subscriber
from rustmq_sdk.values import OutgoingMessage, TopicPartition

SETTLED, LOST = SettleOutcome.SETTLED, SettleOutcome.LOST
KIB = 1024


class QueueSourceContract(Contract):
    """Tests what :class:`~rustmq_sdk.slots.QueueSubscription` promises."""

    lease: float = 2.0
    """Seconds of a lease. Some tests wait until it has run out, so it should be short where time is real."""

    async def test_a_queue_reports_one_assignment_without_a_partition(
        self, driver: Driver, topic: str, group: str
    ) -> None:
        await self.create(driver, topic)
        async with self.queue_member(driver, topic, group) as member:
            await member.owns([TopicPartition(topic, None)])

    async def test_a_topic_that_does_not_exist_is_named_until_it_exists(
        self, driver: Driver, topic: str, group: str
    ) -> None:
        if not self.creates_topics:
            pytest.skip("topics do not come into being by sending: a reader of an unknown one is told UnknownTopic")

        async with self.queue_member(driver, topic, group) as member:
            await member.misses([topic])
            await self.create(driver, topic)
            await member.misses([])
            await member.owns([TopicPartition(topic, None)])

    async def test_every_message_arrives_once_with_a_receipt(self, driver: Driver, topic: str, group: str) -> None:
        await self.filled(driver, topic, 100)
        async with self.queue_member(driver, topic, group) as member:
            await self.collect(member, 100)
            assert sorted(member.payloads(), key=str) == sorted(numbered(100), key=str)
            receipts = receipts_of(member)
            assert len(receipts) == 100
            assert len({receipt.id for receipt in receipts}) == 100, "ids tell messages apart"
            assert await member.subscription.settle([Ack(receipt) for receipt in receipts]) == [SETTLED] * 100
            assert not await self.quiet(member)

    async def test_a_message_comes_back_as_it_was_sent(self, driver: Driver, topic: str, group: str) -> None:
        await self.create(driver, topic)
        headers = (("b", b"\xff"), ("a", b""))
        await self.append(driver, topic, [OutgoingMessage(bytes(range(256)), b"key", headers), b""])
        async with self.queue_member(driver, topic, group) as member:
            await self.collect(member, 2)
            first, second = member.received
            assert (first.payload, first.key) == (bytes(range(256)), b"key")
            assert list(first.headers) == list(headers)
            assert second.payload == b""

    async def test_members_share_the_messages(self, driver: Driver, topic: str, group: str) -> None:
        await self.filled(driver, topic, 20)
        async with self.queue_member(driver, topic, group) as one, self.queue_member(driver, topic, group) as other:
            for member in (one, other):
                await self.joined(member)
                await member.fetch(max_messages=10, max_wait=self.patience)

            assert not set(one.payloads()) & set(other.payloads()), "a leased message is nobody else's"
            with anyio.fail_after(self.patience):
                while len(one.received) + len(other.received) < 20:
                    await one.fetch(max_wait=0.05)

    async def test_groups_each_get_every_message(self, driver: Driver, topic: str, group: str) -> None:
        await self.filled(driver, topic, 5)
        for name in (group, group + "-other"):
            async with self.queue_member(driver, topic, name) as member:
                await self.collect(member, 5)
                await self.ack_all(member)

    async def test_an_unsettled_message_comes_again_after_its_lease(
        self, driver: Driver, topic: str, group: str
    ) -> None:
        await self.filled(driver, topic, 2)
        async with self.queue_member(driver, topic, group) as member:
            await self.collect(member, 2)
            kept, forgotten = receipts_of(member)
            assert await member.subscription.settle([Ack(kept)]) == [SETTLED]
            await member.collect(3)
            assert member.payloads() == [b"m0", b"m1", b"m1"]
            assert await member.subscription.settle([Ack(forgotten)]) == [LOST]
            if driver.capabilities.counts_attempts:
                assert [record.attempt for record in member.received] == [1, 1, 2]

    async def test_a_message_of_a_member_that_left_comes_again(self, driver: Driver, topic: str, group: str) -> None:
        await self.filled(driver, topic, 1)
        async with self.queue_member(driver, topic, group) as member:
            await self.collect(member, 1)

        async with self.queue_member(driver, topic, group) as successor:
            await self.collect(successor, 1)
            assert successor.payloads() == [b"m0"]
            await self.ack_all(successor)

    async def test_an_extended_lease_lasts(self, driver: Driver, topic: str, group: str) -> None:
        await self.filled(driver, topic, 2)
        async with self.queue_member(driver, topic, group) as member:
            await self.collect(member, 2)
            extended, dropped = receipts_of(member)
            for _ in range(4):
                await anyio.sleep(self.lease * 0.6)
                lost = await member.subscription.extend([extended])
                assert list(lost) == []

            assert await member.subscription.settle([Ack(extended)]) == [SETTLED]
            assert list(await member.subscription.extend([dropped])) == [dropped]

    async def test_acked_and_terminated_messages_never_come_again(self, driver: Driver, topic: str, group: str) -> None:
        await self.filled(driver, topic, 2)
        async with self.queue_member(driver, topic, group) as member:
            await self.collect(member, 2)
            one, other = receipts_of(member)
            assert await member.subscription.settle([Ack(one), Term(other)]) == [SETTLED, SETTLED]
            await anyio.sleep(self.lease * 1.5)
            assert not await self.quiet(member)

    async def test_a_nacked_message_comes_again_and_the_attempt_counts(
        self, driver: Driver, topic: str, group: str
    ) -> None:
        await self.filled(driver, topic, 1)
        async with self.queue_member(driver, topic, group) as member:
            for attempt in (1, 2, 3):
                began = anyio.current_time()
                await self.collect(member, attempt)
                assert anyio.current_time() - began < self.lease, "without a delay it need not wait for the lease"
                if driver.capabilities.counts_attempts:
                    assert member.received[-1].attempt == attempt

                (receipt,) = receipts_of(member)[-1:]
                assert await member.subscription.settle([Nack(receipt)]) == [SETTLED]

    async def test_giving_back_uncounted_counts_no_attempt(self, driver: Driver, topic: str, group: str) -> None:
        if not driver.capabilities.counts_attempts:
            pytest.skip("this driver does not claim counts_attempts")

        await self.filled(driver, topic, 1)
        async with self.queue_member(driver, topic, group) as member:
            for count in (1, 2):
                await self.collect(member, count)
                await member.subscription.settle([Nack(receipts_of(member)[-1], counted=False)])

            await self.collect(member, 3)
            assert [record.attempt for record in member.received] == [1, 1, 1]

    async def test_each_nack_has_its_own_delay(self, driver: Driver, topic: str, group: str) -> None:
        await self.filled(driver, topic, 3)
        async with self.queue_member(driver, topic, group) as member:
            await self.collect(member, 3)
            one, two, three = receipts_of(member)
            began = anyio.current_time()
            await member.subscription.settle([Nack(one, self.lease * 4), Nack(two), Nack(three, self.lease * 2)])
            if not driver.capabilities.delayed_nack:
                await member.collect(6)
                return

            arrived: list[float] = []
            while len(arrived) < 3:
                await member.collect(len(member.received) + 1)
                arrived += [anyio.current_time() - began] * (len(member.received) - 3 - len(arrived))
                await self.ack_all(member)

            assert member.payloads()[3:] == [b"m1", b"m2", b"m0"]
            assert arrived[1] >= self.lease * 2
            assert arrived[2] >= self.lease * 4

    async def test_outcomes_come_in_the_order_of_the_settlements(self, driver: Driver, topic: str, group: str) -> None:
        await self.filled(driver, topic, 2)
        async with self.queue_member(driver, topic, group) as member:
            await self.collect(member, 2)
            stale = receipts_of(member)[0]
            await anyio.sleep(self.lease * 1.5)
            await self.collect(member, 4)
            fresh = receipts_of(member)[-1]
            assert await member.subscription.settle([Ack(stale), Ack(fresh)]) == [LOST, SETTLED]
            assert await member.subscription.settle([]) == []

    async def test_a_waiting_fetch_returns_when_a_message_arrives(self, driver: Driver, topic: str, group: str) -> None:
        await self.create(driver, topic)
        async with self.queue_member(driver, topic, group) as member:
            await self.joined(member)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(member.collect, 1)
                await anyio.wait_all_tasks_blocked()
                await self.append(driver, topic, [b"late"])

            assert member.payloads() == [b"late"]

    async def test_wake_ends_a_fetch(self, driver: Driver, topic: str, group: str) -> None:
        await self.create(driver, topic)
        async with self.queue_member(driver, topic, group) as member:
            await self.joined(member)
            await member.fetch(max_wait=0.05)
            member.subscription.wake()
            for wanted in (member.wanted, []):
                with anyio.fail_after(self.patience):
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(_fetch_long, member, wanted, self.patience * 100)
                        await anyio.wait_all_tasks_blocked()
                        member.subscription.wake()

    async def test_a_cancelled_fetch_loses_nothing(self, driver: Driver, topic: str, group: str) -> None:
        await self.create(driver, topic)
        async with self.queue_member(driver, topic, group) as member:
            await self.joined(member)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(member.collect, 100)
                await anyio.wait_all_tasks_blocked()
                await self.append(driver, topic, numbered(5))
                tasks.cancel_scope.cancel()

            await member.collect(5)
            assert sorted(member.payloads(), key=str) == numbered(5)

    async def test_a_fetch_brings_no_more_than_asked(self, driver: Driver, topic: str, group: str) -> None:
        await self.create(driver, topic)
        await self.append(driver, topic, [bytes(KIB)] * 20)
        await self.append(driver, topic, [bytes(50 * KIB)])
        most = 5 + driver.capabilities.overshoot_messages
        async with self.queue_member(driver, topic, group) as member:
            await self.joined(member)
            pieces = await member.fetch(max_messages=5, max_wait=self.patience)
            assert 0 < sum(len(piece.records) for piece in pieces) <= most
            while len(member.received) < 21:
                before = len(member.received)
                await member.fetch(max_bytes=4 * KIB, max_wait=self.patience)
                brought = [len(record.payload or b"") for record in member.received[before:]]
                assert sum(brought) <= 4 * KIB + driver.capabilities.overshoot_bytes or len(brought) == 1

    async def filled(self, driver: Driver, topic: str, count: int) -> None:
        """Creates the topic with this many messages."""
        await self.create(driver, topic)
        await self.append(driver, topic, numbered(count))

    async def joined(self, member: Subscriber[QueueSubscription]) -> None:
        """Waits for the assignment."""
        await member.listener.until(lambda: bool(member.listener.assignments), self.patience)

    async def collect(self, member: Subscriber[QueueSubscription], count: int) -> None:
        """Waits for the assignment and for ``count`` messages in all."""
        await self.joined(member)
        await member.collect(count)

    async def quiet(self, member: Subscriber[QueueSubscription]) -> Sequence[bytes | None]:
        """Returns what comes although nothing should come."""
        before = len(member.received)
        await member.fetch(max_wait=0.1)
        return member.payloads()[before:]

    async def ack_all(self, member: Subscriber[QueueSubscription]) -> None:
        """Acks everything that was received, whether it was settled before or not."""
        await member.subscription.settle([Ack(receipt) for receipt in receipts_of(member)])


def receipts_of(member: Subscriber[QueueSubscription]) -> list[Receipt]:
    """Returns the receipts of all that was received, in that order."""
    return [receipt for piece in member.pieces for receipt in piece.receipts]


async def _fetch_long(member: Subscriber[QueueSubscription], wanted: Sequence[object], wait: float) -> None:
    assignments = [assignment for assignment in member.wanted if assignment in wanted]
    assert not await member.fetch(assignments, max_wait=wait)
