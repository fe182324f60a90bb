"""Faults happen where the plan says, have the effect their name says, and are on record."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator

import anyio
import pytest

from rustmq_sdk.drivers.memory import MemoryDriver
from rustmq_sdk.drivers.memory import open as open_memory
from rustmq_sdk.errors import ConfigurationError, OutcomeUnknown, TransientDriverError
from rustmq_sdk.slots import Ack, SettleOutcome, SourceRequest
from rustmq_sdk.testing import OPERATIONS, Fault, FaultPlan, FaultyDriver, RecordingListener
from rustmq_sdk.values import Assignment, Checkpoint, CommitOutcome, OutgoingMessage, ProducerSequence, TopicPartition

pytestmark = pytest.mark.virtual_time

TP = TopicPartition("topic", 0)
REQUEST = SourceRequest(topics=["topic"], group="group", lease=30, revoke_budget=5)
MESSAGES = [OutgoingMessage(b"0"), OutgoingMessage(b"1")]


@pytest.fixture
async def memory() -> AsyncIterator[MemoryDriver]:
    async with open_memory("memory://") as driver:
        driver.broker.create_topic("topic")
        yield driver


async def append(driver: FaultyDriver, sequence: ProducerSequence | None = None) -> None:
    await driver.sink().append("topic", 0, MESSAGES, sequence=sequence)


def stored(memory: MemoryDriver) -> int:
    return memory.broker.log(TP, operation="test").end


async def test_without_a_fault_a_driver_is_what_it_was(memory: MemoryDriver) -> None:
    async with FaultyDriver(memory, FaultPlan()) as driver:
        await append(driver)
        assert driver.capabilities == memory.capabilities
        assert stored(memory) == 2
        assert driver.plan.calls["sink.append"] == 1
        assert not driver.plan.injected


async def test_a_refused_call_has_no_effect_and_the_next_one_has(memory: MemoryDriver) -> None:
    fault = Fault("sink.append", "refused", call=2)
    async with FaultyDriver(memory, FaultPlan(fault)) as driver:
        await append(driver)
        with pytest.raises(TransientDriverError) as refusal:
            await append(driver)

        assert (refusal.value.slot, refusal.value.operation) == ("sink", "append")
        assert stored(memory) == 2
        await append(driver)
        assert stored(memory) == 4
        assert driver.plan.injected == [fault]


async def test_a_lost_reply_comes_after_the_effect(memory: MemoryDriver) -> None:
    async with FaultyDriver(memory, FaultPlan(Fault("state.put", "reply_lost"))) as driver:
        with pytest.raises(TransientDriverError):
            await driver.state_store("s").put("key", b"1", if_version=None)

        assert await driver.state_store("s").get("key") is not None


async def test_a_lost_append_is_unknown_unless_its_sequence_is_checked(memory: MemoryDriver) -> None:
    plan = FaultPlan(Fault("sink.append", "reply_lost", call=1), Fault("sink.append", "reply_lost", call=2))
    async with FaultyDriver(memory, plan) as driver:
        with pytest.raises(OutcomeUnknown):
            await append(driver)

        sequence = ProducerSequence(b"me", 0)
        with pytest.raises(TransientDriverError):
            await append(driver, sequence)

        await append(driver, sequence)
        assert stored(memory) == 4, "twice from two appends, and the repeated one is known"


async def test_a_hanging_call_goes_on_after_its_time(memory: MemoryDriver) -> None:
    async with FaultyDriver(memory, FaultPlan(Fault("sink.append", "hang", seconds=7))) as driver:
        began = anyio.current_time()
        await append(driver)
        assert anyio.current_time() - began == pytest.approx(7)
        assert stored(memory) == 2


async def test_a_call_that_hangs_for_ever_ends_by_cancellation_only(memory: MemoryDriver) -> None:
    async with FaultyDriver(memory, FaultPlan(Fault("sink.append", "hang"))) as driver:
        with anyio.move_on_after(3600) as scope:
            await append(driver)

        assert scope.cancelled_caught
        assert stored(memory) == 0


async def test_a_disconnect_fails_everything_until_it_is_over(memory: MemoryDriver) -> None:
    async with FaultyDriver(memory, FaultPlan(Fault("admin.topics", "disconnect", seconds=5))) as driver:
        for call in (driver.admin().topics, lambda: append(driver), driver.admin().topics):
            with pytest.raises(TransientDriverError):
                await call()

        await anyio.sleep(5)
        await append(driver)
        assert stored(memory) == 2


async def test_a_disconnect_ends_a_waiting_fetch(memory: MemoryDriver) -> None:
    plan = FaultPlan(Fault("admin.topics", "disconnect", seconds=5))
    async with FaultyDriver(memory, plan) as driver:
        listener = RecordingListener()
        async with driver.source(REQUEST).subscribe(listener) as listener.subscription:
            await listener.until(lambda: TP in listener.assignments, 10)

            async def fetch() -> None:
                with pytest.raises(TransientDriverError):
                    await listener.subscription.fetch(  # type: ignore[union-attr]
                        list(listener.assignments.values()), max_messages=1, max_bytes=1, max_wait=1000
                    )

            began = anyio.current_time()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(fetch)
                await anyio.wait_all_tasks_blocked()
                with pytest.raises(TransientDriverError):
                    await driver.admin().topics()

            assert anyio.current_time() == began


async def test_a_failed_fetch_takes_nothing_from_a_log(memory: MemoryDriver) -> None:
    plan = FaultPlan(Fault("source.fetch", "reply_lost"), Fault("source.fetch", "refused", call=2))
    async with FaultyDriver(memory, plan) as driver:
        await append(driver)
        listener = RecordingListener()
        async with driver.source(REQUEST).subscribe(listener) as listener.subscription:
            await listener.until(lambda: TP in listener.assignments, 10)
            wanted = list(listener.assignments.values())
            for _ in range(2):
                with pytest.raises(TransientDriverError):
                    await listener.subscription.fetch(wanted, max_messages=9, max_bytes=99, max_wait=1)

            (piece,) = await listener.subscription.fetch(wanted, max_messages=9, max_bytes=99, max_wait=1)
            assert list(piece.offsets) == [0, 1]


async def test_a_lost_reply_of_a_settlement_can_be_repeated() -> None:
    plan = FaultPlan(Fault("source.settle", "reply_lost"))
    async with FaultyDriver(open_memory("memory://?kind=queue"), plan) as driver:
        await append(driver)
        listener = RecordingListener()
        async with driver.source(REQUEST).subscribe(listener) as subscription:
            listener.subscription = subscription
            await listener.until(lambda: bool(listener.assignments), 10)
            wanted = list(listener.assignments.values())
            (piece,) = await subscription.fetch(wanted, max_messages=9, max_bytes=99, max_wait=1)
            acks = [Ack(receipt) for receipt in piece.receipts]
            with pytest.raises(TransientDriverError):
                await subscription.settle(acks)  # type: ignore[union-attr]

            assert await subscription.settle(acks) == [SettleOutcome.SETTLED] * 2  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("kind", "calls"),
    [("rebalance", ["assigned", "revoking", "assigned"]), ("expire", ["assigned", "lost", "assigned"])],
)
async def test_partitions_move_at_a_call(memory: MemoryDriver, kind: str, calls: list[str]) -> None:
    plan = FaultPlan(Fault("source.commit", kind))  # type: ignore[arg-type]
    async with FaultyDriver(memory, plan) as driver:
        listener = RecordingListener()
        async with driver.source(REQUEST).subscribe(listener) as subscription:
            listener.subscription = subscription
            await listener.until(lambda: TP in listener.assignments, 10)
            before = listener.assignments[TP]
            outcome = await subscription.commit({before: Checkpoint(1)})  # type: ignore[union-attr]
            assert (outcome[before] is CommitOutcome.FENCED) == (kind == "expire")
            await listener.until(lambda: len(listener.calls) == 3, 10)
            assert [call.name for call in listener.calls] == calls


@pytest.mark.parametrize(("kind", "effect"), [("crash", 0), ("crash_after", 2)])
async def test_after_a_crash_nothing_returns_or_happens(memory: MemoryDriver, kind: str, effect: int) -> None:
    plan = FaultPlan(Fault("sink.append", kind))  # type: ignore[arg-type]
    returned: list[str] = []

    async def appending() -> None:
        await append(driver)
        returned.append("append")

    async with FaultyDriver(memory, plan) as driver, anyio.create_task_group() as tasks:
        tasks.start_soon(appending)
        await driver.crashed.wait()
        assert stored(memory) == effect
        tasks.start_soon(appending)
        await anyio.sleep(1000)
        tasks.cancel_scope.cancel()

    assert not returned
    assert stored(memory) == effect


async def test_what_a_driver_has_no_hook_for_is_refused() -> None:
    memory = open_memory("memory://")
    async with FaultyDriver(memory, FaultPlan(Fault("source.commit", "expire"))) as driver:
        driver._fates = {"rebalance": None, "expire": None}
        listener = RecordingListener()
        async with driver.source(REQUEST).subscribe(listener) as subscription:
            listener.subscription = subscription
            with pytest.raises(ConfigurationError, match="expire="):
                await subscription.commit({Assignment(TP, 0): Checkpoint(1)})  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "wrong",
    [
        {"operation": "source.fletch", "kind": "refused"},
        {"operation": "source.fetch", "kind": "refuse"},
        {"operation": "source.fetch", "kind": "refused", "call": 0},
        {"operation": "source.fetch", "kind": "disconnect"},
    ],
)
def test_a_fault_that_cannot_be_is_an_error(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"expected one of|counted from 1|seconds"):
        Fault(**wrong)  # type: ignore[arg-type]


def test_a_random_plan_is_the_same_for_the_same_seed() -> None:
    def drawn(seed: int) -> list[Fault]:
        plan = FaultPlan.random(seed, rate=0.3)
        for call in range(200):
            plan.draw(OPERATIONS[call % len(OPERATIONS)])

        return plan.injected

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
    assert len(drawn(1)) == 20, "and then it is over"
    assert all(0 < fault.seconds < math.inf for fault in drawn(1))
