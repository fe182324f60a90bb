"""Groups in memory under random comings and goings: whatever happens, one owner at a time, and nothing is lost."""

from __future__ import annotations

import random
from collections.abc import Collection

import anyio
import pytest

from rustmq_sdk.drivers.memory import MemoryDriver
from rustmq_sdk.drivers.memory.log_source import MemoryLogSubscription
from rustmq_sdk.slots import SourceRequest
from rustmq_sdk.testing import BACKENDS, RecordingListener, run
from rustmq_sdk.testing.clock import Backend
from rustmq_sdk.values import Assignment, Checkpoint, CommitOutcome, OutgoingMessage, TopicPartition

REQUEST = SourceRequest(topics=["topic"], group="group", lease=30, revoke_budget=5)
PARTITIONS = 5
EACH = 40


class World:
    """The driver, and who of the members believes to own what."""

    def __init__(self, driver: MemoryDriver, rng: random.Random) -> None:
        self.driver = driver
        self.rng = rng
        self.committed = dict.fromkeys(range(PARTITIONS), 0)
        self.handled: set[tuple[int, int]] = set()
        self.generations: dict[TopicPartition, int] = {}

    async def member(self) -> None:
        """Joins, works for a while, and leaves."""
        listener = RecordingListener(on_revoking=self._drain)
        async with self.driver.source(REQUEST).subscribe(listener) as subscription:
            listener.subscription = subscription
            assert isinstance(subscription, MemoryLogSubscription)
            with anyio.move_on_after(self.rng.uniform(1, 20)):
                while True:
                    await self._work(subscription, listener)

        assert not listener.violations

    async def fate(self) -> None:
        """Expires members and forces rebalances."""
        for _ in range(self.rng.randrange(6)):
            await anyio.sleep(self.rng.uniform(0, 5))
            self.rng.choice([self.driver.broker.expire, self.driver.broker.rebalance])("group")

    async def _drain(self, assignments: Collection[Assignment], budget: float) -> None:
        await anyio.sleep(self.rng.uniform(0, budget))

    async def _work(self, subscription: MemoryLogSubscription, listener: RecordingListener) -> None:
        self._check(listener)
        wanted = list(listener.assignments.values())
        pieces = await subscription.fetch(wanted, max_messages=7, max_bytes=1000, max_wait=1)
        await anyio.sleep(self.rng.uniform(0, 0.5))
        for piece in pieces:
            partition = piece.assignment.partition or 0
            written = await subscription.commit({piece.assignment: Checkpoint(piece.next_offset)})
            if written[piece.assignment] is CommitOutcome.COMMITTED:
                self.handled |= {(partition, offset) for offset in piece.offsets}
                assert piece.next_offset > self.committed[partition], "a fenced member moved the position back"
                assert piece.offsets[0] == self.committed[partition], "nothing between two owners is skipped"
                self.committed[partition] = piece.next_offset

    def _check(self, listener: RecordingListener) -> None:
        for tp, assignment in listener.assignments.items():
            assert assignment.epoch is not None
            assert assignment.epoch >= self.generations.get(tp, 0) or not self._owns(listener, tp)
            self.generations[tp] = max(assignment.epoch, self.generations.get(tp, 0))

    def _owns(self, listener: RecordingListener, tp: TopicPartition) -> bool:
        subscription = listener.subscription
        assert isinstance(subscription, MemoryLogSubscription)
        return self.driver.broker.group("group").owner(tp) is subscription.membership.member


async def simulate(seed: int) -> None:
    rng = random.Random(seed)
    async with MemoryDriver() as driver:
        driver.broker.create_topic("topic", PARTITIONS)
        for partition in range(PARTITIONS):
            messages = [OutgoingMessage(b"%d" % number) for number in range(EACH)]
            await driver.sink().append("topic", partition, messages, sequence=None)

        world = World(driver, rng)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(world.fate)
            for _ in range(4):
                tasks.start_soon(world.member)
                await anyio.sleep(rng.uniform(0, 6))

        assert not driver.broker.group("group").state(), "everybody left"
        with anyio.fail_after(1000):
            while len(world.handled) < PARTITIONS * EACH:
                await world.member()


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_owner_at_a_time_and_nothing_lost_over_many_schedules(backend: Backend) -> None:
    for seed in range(40):
        run(lambda seed=seed: simulate(seed), backend=backend, seed=seed)  # type: ignore[misc]
