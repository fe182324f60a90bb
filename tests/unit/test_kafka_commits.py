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
from aiokafka.errors import CoordinatorLoadInProgressError, IllegalGenerationError, UnknownTopicOrPartitionError
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
        topics: that exist.
        known_topics: those of them that brokers tell of.
        sent: the generation of each commit that was sent, when it was.
        asked: something waits for the coordinator.
    """

    def __init__(self) -> None:
        self.generation = 3
        self.failures: list[Exception] = []
        self.sent: list[int] = []
        self.topics = {"t"}
        self.known_topics = {"t"}
        self.looks = 0
        self._client = self
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

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        return {0} if topic in self.known_topics else None

    async def force_metadata_update(self) -> None:
        self.looks += 1
        if self.looks == 3:
            self.known_topics = self.topics

    async def _do_commit_offsets(self, _: Any, offsets: Mapping[KafkaPartition, OffsetAndMetadata]) -> None:
        self.sent.append(self.generation)
        self.asked.set()
        await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)

        if not {partition.topic for partition in offsets} <= self.topics:
            raise UnknownTopicOrPartitionError


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commits, "RETRY_PAUSE", 0.001)


async def test_a_commit_is_tried_again_until_the_coordinator_takes_it() -> None:
    member = Member()
    member.failures = [CoordinatorLoadInProgressError()] * 3
    assert await member.commits.send(AT_FIVE) == {ONE: CommitOutcome.COMMITTED}
    assert member.sent == [3] * 4


OTHER = Assignment(TopicPartition("other", 0), 1)
BOTH = AT_FIVE | {OTHER: Checkpoint(7, b"")}


def member_of_two() -> Member:
    member = Member()
    member.has({ON_ONE, KafkaPartition("other", 0)})
    member.holdings.take({ONE: 0, OTHER: 0}, 3)
    return member


@pytest.mark.parametrize("known", [{"t"}, {"t", "other"}], ids=["told", "told later"])
async def test_a_topic_that_was_deleted_holds_up_no_commit_of_another(known: set[str]) -> None:
    member = member_of_two()
    member.known_topics = known
    with anyio.fail_after(30):
        outcomes = await member.commits.send(BOTH)

    assert outcomes == {ONE: CommitOutcome.COMMITTED, OTHER: CommitOutcome.RETRY}
    assert member.looks, "so that the member knows that it is gone"


async def test_a_deleted_topic_of_one_s_own_is_not_asked_about_for_ever() -> None:
    member = Member()
    member.topics = member.known_topics = set()
    with anyio.fail_after(30):
        assert await member.commits.send(AT_FIVE) == RETRY


async def test_a_topic_that_not_all_brokers_know_yet_is_committed_when_they_do() -> None:
    member = Member()
    member.failures = [UnknownTopicOrPartitionError()] * 2
    assert await member.commits.send(AT_FIVE) == {ONE: CommitOutcome.COMMITTED}


async def test_a_commit_that_a_rebalance_refuses_is_fenced_though_a_topic_is_gone() -> None:
    member = member_of_two()
    member.failures = [UnknownTopicOrPartitionError(), IllegalGenerationError()]
    assert await member.commits.send(BOTH) == dict.fromkeys(BOTH, CommitOutcome.FENCED)


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
