"""What happens to the consumer between a partition's leaving and its coming back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager

import anyio
import pytest

from rustmq_sdk import Consumer
from rustmq_sdk.drivers.memory import MemoryDriver
from rustmq_sdk.slots import AssignmentListener, Capabilities, Fetched, LogSubscription, Source, SourceRequest
from rustmq_sdk.values import AckResult, Assignment, OutgoingMessage, TopicPartition

pytestmark = pytest.mark.virtual_time

TP = TopicPartition("t", 0)
BUDGET = 5.0


@pytest.fixture
async def driver() -> AsyncIterator[MemoryDriver]:
    """One partition with twenty messages."""
    async with MemoryDriver() as driver:
        driver.broker.create_topic("t", 1)
        driver.broker.append(TP, [OutgoingMessage(b"%d" % number) for number in range(20)])
        yield driver


def source(driver: MemoryDriver, topic: str = "t") -> Source:
    """Of the group ``g``."""
    return driver.source(SourceRequest(topics=[topic], group="g", lease=30.0, revoke_budget=BUDGET))


async def test_all_messages_of_a_partition_that_came_back_carry_its_new_fence(driver: MemoryDriver) -> None:
    async with Consumer(source(driver), group="g") as consumer:
        held = await consumer.receive()
        before = held.fence
        driver.broker.rebalance("g")
        await anyio.sleep(2 * BUDGET)
        buffered = await consumer.receive()
        await held.nack(delay=1.0)
        fences = {message.attempt: message.fence for message in [await consumer.receive() for _ in range(19)]}

    assert before is not None
    assert buffered.fence is not None
    assert before < buffered.fence
    # A store that has seen the new fence would refuse the retry for ever.
    assert fences == {1: buffered.fence, 2: buffered.fence}


async def test_a_seek_during_a_revoke_is_committed_and_holds_after_it(driver: MemoryDriver) -> None:
    async with Consumer(source(driver), group="g") as consumer:
        for _ in range(10):
            await (await consumer.receive()).ack()

        held = await consumer.receive()
        driver.broker.rebalance("g")
        await anyio.sleep(0.1)
        await consumer.seek("t", 0, 2)
        await anyio.sleep(2 * BUDGET)

        assert await held.ack() is AckResult.STALE
        assert driver.broker.group("g").committed[TP].offset == 2
        assert (await consumer.receive()).offset == 2


async def test_a_partition_that_was_moved_during_its_revoke_starts_there_with_its_next_owner(
    driver: MemoryDriver,
) -> None:
    driver.broker.create_topic("two", 2)
    both = [TopicPartition("two", 0), TopicPartition("two", 1)]
    for tp in both:
        driver.broker.append(tp, [OutgoingMessage(b"%d" % number) for number in range(20)])

    async with Consumer(source(driver, "two"), group="g") as first:
        for _ in range(15):
            await first.receive()

        async with Consumer(source(driver, "two"), group="g") as second:
            await anyio.sleep(0.1)
            await first.seek_all(12)
            await anyio.sleep(2 * BUDGET)

            assert len(first.assigned_partitions) == len(second.assigned_partitions) == 1
            assert first.assigned_partitions | second.assigned_partitions == set(both)
            assert (await first.receive()).offset == (await second.receive()).offset == 12
            assert first.statistics().in_flight == second.statistics().in_flight == 8


async def test_leaving_does_not_wait_for_a_revoke_that_waits_for_a_handler(driver: MemoryDriver) -> None:
    patient = LeavesAfterItsRevoke(source(driver))
    async with Consumer(patient, group="g", close_timeout=20.0) as consumer:
        await consumer.receive()
        driver.broker.rebalance("g")
        await anyio.sleep(0.1)
        began = anyio.current_time()

    assert patient.left_by_itself
    assert anyio.current_time() - began < 0.1


async def test_an_error_of_a_subscription_that_is_being_left_is_nobodys(driver: MemoryDriver) -> None:
    async with Consumer(ClosesItsClientFirst(source(driver)), group="g") as consumer:
        await (await consumer.receive()).ack()

    assert driver.broker.group("g").committed[TP].offset == 1


class LeavesAfterItsRevoke:
    """A source whose client finishes what its group is doing before it leaves, as aiokafka does."""

    def __init__(self, inner: Source) -> None:
        self._inner = inner
        self._listener: AssignmentListener
        self._idle = anyio.Event()
        self.left_by_itself = False

    @property
    def capabilities(self) -> Capabilities:
        return self._inner.capabilities

    @asynccontextmanager
    async def subscribe(self, listener: AssignmentListener) -> AsyncIterator[LogSubscription]:
        self._listener = listener
        self._idle.set()
        async with self._inner.subscribe(self) as subscription:  # type: ignore[arg-type]
            yield subscription  # type: ignore[misc]
            await self._idle.wait()
            self.left_by_itself = True

    async def assigned(self, partitions: Collection[TopicPartition], generation: int | None, *, reason: str) -> object:
        return await self._listener.assigned(partitions, generation, reason=reason)

    async def revoking(self, assignments: Collection[Assignment], budget: float) -> None:
        self._idle = anyio.Event()
        try:
            await self._listener.revoking(assignments, budget)
        finally:
            self._idle.set()

    async def lost(self, assignments: Collection[Assignment], *, reason: str) -> None:
        await self._listener.lost(assignments, reason=reason)


class ClosesItsClientFirst:
    """A source whose client is closed while the runtime still fetches."""

    def __init__(self, inner: Source) -> None:
        self._inner = inner

    @property
    def capabilities(self) -> Capabilities:
        return self._inner.capabilities

    @asynccontextmanager
    async def subscribe(self, listener: AssignmentListener) -> AsyncIterator[LogSubscription]:
        async with self._inner.subscribe(listener) as subscription:
            fetch = subscription.fetch
            closed = False

            async def refuse(*args: object, **options: object) -> Sequence[Fetched]:
                if closed:
                    raise RuntimeError("the client is closed")

                return await fetch(*args, **options)  # type: ignore[arg-type]

            subscription.fetch = refuse  # type: ignore[method-assign]
            yield subscription  # type: ignore[misc]
            closed = True
            subscription.wake()
            await anyio.sleep(0.1)
