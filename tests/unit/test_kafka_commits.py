"""No commit of an old generation moves the position of whoever owns the partition now. asyncio only."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

pytest.importorskip("aiokafka")

from aiokafka import TopicPartition as KafkaPartition
from aiokafka.errors import CoordinatorLoadInProgressError
from aiokafka.structs import OffsetAndMetadata

from rustmq_sdk.drivers.kafka import commits
from rustmq_sdk.drivers.kafka.commits import OffsetCommits
from rustmq_sdk.drivers.kafka.group import GroupMembership
from rustmq_sdk.drivers.kafka.holdings import Holdings
from rustmq_sdk.slots import AssignmentListener
from rustmq_sdk.values import Assignment, Checkpoint, CommitOutcome, TopicPartition

pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])

ONE = Assignment(TopicPartition("t", 0), 1)
ON_ONE = KafkaPartition("t", 0)
AT_FIVE = {ONE: Checkpoint(5, b"")}
RETRY = {ONE: CommitOutcome.RETRY}


class Member:
    """As much of aiokafka's consumer as commits ask: in generation 3, with one partition.

    Attributes:
        known: set while the coordinator is known; commits wait for that first.
        gate: set while the coordinator answers.
        failures: what it answers first.
        sent: the generation of each commit that was sent, when it was.
        asked: something waits for the coordinator.
    """

    def __init__(self) -> None:
        self.generation = 3
        self.failures: list[Exception] = []
        self.sent: list[int] = []
        self.known, self.gate, self.asked = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.known.set()
        self.gate.set()
        self._coordinator = self
        self._commit_lock = asyncio.Lock()
        self._subscription = SimpleNamespace(subscription=SimpleNamespace())
        self.has({ON_ONE})
        self.holdings = Holdings()
        self.holdings.take({ONE: 0}, 3)
        consumer: Any = self
        self.commits = OffsetCommits(consumer, self.holdings, lambda: self.generation)

    def has(self, partitions: set[KafkaPartition] | None) -> None:
        """What aiokafka believes; None while a rebalance runs."""
        assignment = SimpleNamespace(tps=partitions) if partitions is not None else None
        self._subscription.subscription.assignment = assignment

    async def ensure_coordinator_known(self) -> None:
        self.asked.set()
        await self.known.wait()

    async def _do_commit_offsets(self, _: Any, offsets: Mapping[KafkaPartition, OffsetAndMetadata]) -> None:
        self.sent.append(self.generation)
        self.asked.set()
        await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commits, "RETRY_PAUSE", 0.001)


async def test_a_commit_is_tried_again_until_the_coordinator_takes_it() -> None:
    member = Member()
    member.failures = [CoordinatorLoadInProgressError()] * 3
    assert await member.commits.send(AT_FIVE) == {ONE: CommitOutcome.COMMITTED}
    assert member.sent == [3] * 4


async def test_nothing_is_sent_between_two_generations() -> None:
    """The group has let us in again, and the partitions are not assigned yet: they may be somebody else's."""
    member = Member()
    member.generation = 4
    assert await member.commits.send(AT_FIVE) == RETRY
    assert member.sent == []
    assert not member.asked.is_set(), "nobody is asked who it would go to"


async def test_what_is_not_ours_is_fenced() -> None:
    member = Member()
    member.holdings.drop([ONE])
    assert await member.commits.send(AT_FIVE) == {ONE: CommitOutcome.FENCED}
    assert member.sent == []


@pytest.mark.parametrize("quicker", ["generation", "taken away", "rebalance"])
async def test_a_commit_that_waited_while_a_rebalance_was_quicker_is_not_sent(quicker: str) -> None:
    member = Member()
    member.known.clear()
    async with asyncio.TaskGroup() as tasks:
        commit = tasks.create_task(member.commits.send(AT_FIVE))
        await member.asked.wait()
        if quicker == "generation":
            member.generation = 4
        else:
            member.has(set() if quicker == "taken away" else None)

        member.known.set()

    assert commit.result() == RETRY
    assert member.sent == []


async def test_a_commit_that_is_tried_again_is_not_sent_under_another_generation() -> None:
    member = Member()
    member.gate.clear()
    member.failures = [CoordinatorLoadInProgressError()]
    async with asyncio.TaskGroup() as tasks:
        commit = tasks.create_task(member.commits.send(AT_FIVE))
        while not member.sent:  # noqa: ASYNC110 - until it is under way
            await asyncio.sleep(0)

        member.generation = 4
        member.gate.set()

    assert commit.result() == RETRY
    assert member.sent == [3]


@pytest.mark.parametrize("revoking_fails", [False, True])
async def test_a_revoke_gives_up_every_commit_that_is_under_way(revoking_fails: bool) -> None:
    class Listener:
        async def revoking(self, *_: object) -> None:
            if revoking_fails:
                raise RuntimeError("odd")

    member = Member()
    consumer: Any = member
    listener: AssignmentListener = Listener()  # type: ignore[assignment]
    membership = GroupMembership(
        consumer, listener, member.holdings, member.commits, budget=1.0, interrupt=lambda: None
    )
    member.gate.clear()
    async with asyncio.TaskGroup() as tasks:
        commit = tasks.create_task(member.commits.send(AT_FIVE))
        while not member.sent:  # noqa: ASYNC110 - until it is under way
            await asyncio.sleep(0)

        await membership.on_partitions_revoked([ON_ONE])
        with anyio.fail_after(30):
            assert await commit == RETRY

    member.failures = []
    member.gate.set()
    assert await member.commits.send(AT_FIVE) == RETRY, "its fate is open"
    assert member.sent == [3]
