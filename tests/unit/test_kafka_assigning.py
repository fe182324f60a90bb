"""An assignment that fails: made again if that may help, and the end of the consumer if not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

pytest.importorskip("aiokafka")

from aiokafka import TopicPartition as KafkaPartition
from aiokafka.errors import KafkaConnectionError

from rustmq_sdk.drivers.kafka import assigning, group, manual
from rustmq_sdk.drivers.kafka.assigning import Assigning
from rustmq_sdk.drivers.kafka.group import NO_GENERATION, GroupMembership
from rustmq_sdk.drivers.kafka.holdings import Holdings
from rustmq_sdk.drivers.kafka.manual import ManualAssignment
from rustmq_sdk.drivers.kafka.topics import read_topics
from rustmq_sdk.errors import ConsumerStateError, PermanentDriverError, TransientDriverError
from rustmq_sdk.values import Assignment, TopicPartition

pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])

PARTITION = KafkaPartition("t", 0)
PASSES: list[Exception] = [TimeoutError(), TransientDriverError("no answer", slot="source", operation="committed")]
STAYS: list[Exception] = [
    ConsumerStateError("no committed position"),
    PermanentDriverError("refused", slot="source", operation="committed"),
    RuntimeError("odd"),
]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assigning, "AGAIN_SECONDS", 0.001)
    monkeypatch.setattr(group, "AGAIN_SECONDS", 0.001)
    monkeypatch.setattr(manual, "LOOK_SECONDS", 0.001)


class Listener:
    """Fails as told, then says where to start.

    Attributes:
        told: what it was told, in order.
        meanwhile: happens while it looks where to start.
        gate: it looks until this is set.
        asked: it looks.
    """

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.told: list[tuple[str, list[int]]] = []
        self.meanwhile: Callable[[], object] = lambda: None
        self.gate, self.asked = asyncio.Event(), asyncio.Event()
        self.gate.set()

    async def assigned(
        self, partitions: Collection[TopicPartition], generation: int | None, *, reason: str = "assigned"
    ) -> Mapping[Assignment, int | None]:
        self.meanwhile()
        self.asked.set()
        await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)

        self._tell("assigned", partitions)
        return {Assignment(tp, generation): 7 for tp in partitions}

    async def revoking(self, assignments: Collection[Assignment], budget: float) -> None:
        self._tell("revoking", [each.tp for each in assignments])

    async def lost(self, assignments: Collection[Assignment], *, reason: str = "lost") -> None:
        self._tell(f"lost, {reason}", [each.tp for each in assignments])

    def _tell(self, what: str, partitions: Collection[TopicPartition]) -> None:
        self.told.append((what, sorted(tp.partition or 0 for tp in partitions)))


class Consumer:
    """As much of aiokafka's as assigning asks; its group is in generation 3.

    Attributes:
        leaders: of the partitions.
        unreachable: brokers.
        sought: where each partition is read that is assigned.
        beating: heartbeats are sent.
        looks: how often metadata were asked for.
        looked: happens then.
    """

    def __init__(self) -> None:
        self.rejoins = self.looks = 0
        self.sought: dict[KafkaPartition, int] = {}
        self._client = self._coordinator = self.cluster = self
        self._conns: dict[int, Any] = {}
        self.generation = 3
        self.leaders: dict[int, int | None] = {0: 1, 1: 2, 2: 1}
        self.unreachable: set[int] = set()
        self.beating = False
        self.looked: Callable[[], object] = lambda: None

    def request_rejoin(self) -> None:
        self.rejoins += 1

    def _start_heartbeat_task(self) -> None:
        self.beating = True

    def leader_for_partition(self, partition: KafkaPartition) -> int | None:
        return self.leaders.get(partition.partition)

    async def ready(self, node: int) -> bool:
        return node not in self.unreachable

    def assign(self, partitions: Collection[KafkaPartition]) -> None:
        self.sought.clear()

    def seek(self, partition: KafkaPartition, offset: int) -> None:
        self.sought[partition] = offset

    def partitions_for_topic(self, topic: str) -> set[int]:
        return set(self.leaders)

    async def force_metadata_update(self) -> None:
        self.looks += 1
        self.looked()


def membership(consumer: Any, listener: Listener, holdings: Holdings) -> GroupMembership:
    async def give_up() -> None:
        pass

    commits = SimpleNamespace(give_up=give_up)
    return GroupMembership(consumer, listener, holdings, commits, budget=1.0, interrupt=lambda: None)


def complaint(of: Assigning) -> Exception | None:
    try:
        of.check()
    except Exception as error:
        return error

    return None


@pytest.mark.parametrize("failure", PASSES, ids=repr)
async def test_a_group_is_joined_again_where_an_assignment_failed_and_may_succeed(failure: Exception) -> None:
    consumer, holdings = Consumer(), Holdings()
    member = membership(consumer, Listener(failure), holdings)
    await member.on_partitions_assigned([PARTITION])
    assert isinstance(complaint(member), TransientDriverError)
    assert consumer.rejoins == 1
    await member.on_partitions_revoked([PARTITION])
    await member.on_partitions_assigned([PARTITION])
    assert complaint(member) is None
    assert (consumer.rejoins, consumer.sought, len(holdings.held)) == (1, {PARTITION: 7}, 1)


@pytest.mark.parametrize("failure", STAYS, ids=repr)
async def test_a_member_whose_assignment_cannot_succeed_says_so_for_good(failure: Exception) -> None:
    consumer = Consumer()
    member = membership(consumer, Listener(TimeoutError(), failure), Holdings())
    for _ in range(3):
        await member.on_partitions_assigned([PARTITION])

    assert complaint(member) is complaint(member) is failure
    assert consumer.rejoins == 1, "for the timeout"


@pytest.mark.parametrize("failure", PASSES, ids=repr)
async def test_partitions_without_a_group_are_assigned_again_after_a_failure_that_may_pass(failure: Exception) -> None:
    consumer: Any = Consumer()
    consumer.leaders = {0: 1}
    holdings, woken = Holdings(), anyio.Event()
    assignment = ManualAssignment(
        consumer,
        Listener(failure),
        holdings,
        read_topics(["t"]),
        interrupt=lambda: woken.set() if holdings.held else None,
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(assignment.run)
        with anyio.fail_after(30):
            await woken.wait()

        tasks.cancel_scope.cancel()

    assert (complaint(assignment), consumer.sought) == (None, {PARTITION: 7})


async def test_partitions_without_a_group_that_cannot_be_assigned_end_the_looking() -> None:
    consumer: Any = Consumer()
    failure = RuntimeError("odd")
    assignment = ManualAssignment(
        consumer,
        Listener(failure),
        Holdings(),
        read_topics(["t"]),
        interrupt=lambda: None,
    )
    with anyio.fail_after(30):
        await assignment.run()

    assert complaint(assignment) is failure


async def test_a_connection_that_owes_an_answer_to_a_question_that_was_given_up_is_ended() -> None:
    given_up, asked = asyncio.Future[None](), asyncio.Future[None]()
    given_up.cancel()
    ended: list[str] = []

    def connection(name: str, *answers: asyncio.Future[None]) -> Any:
        return SimpleNamespace(
            _requests=[(number, None, answer) for number, answer in enumerate(answers)],
            close=lambda reason: ended.append(name),
        )

    consumer = Consumer()
    consumer._conns = {0: connection("well"), 1: connection("half-open", given_up), 2: connection("asked", asked)}
    await membership(consumer, Listener(TimeoutError()), Holdings()).on_partitions_assigned([PARTITION])
    assert ended == ["half-open"]


@pytest.mark.parametrize("failure", [TimeoutError(), KafkaConnectionError()], ids=repr)
async def test_no_failure_comes_without_a_text(failure: Exception) -> None:
    member = membership(Consumer(), Listener(failure), Holdings())
    await member.on_partitions_assigned([PARTITION])
    said = complaint(member)
    assert isinstance(said, TransientDriverError)
    assert "broker" in str(said)
    assert said.__cause__ is failure


async def test_raising_a_failure_again_and_again_does_not_let_it_grow() -> None:
    member = membership(Consumer(), Listener(TimeoutError()), Holdings())
    await member.on_partitions_assigned([PARTITION])

    def depth() -> int:
        said, frames = complaint(member), 0
        trace = said.__traceback__ if said is not None else None
        while trace is not None:
            trace, frames = trace.tb_next, frames + 1

        return frames

    assert depth() == depth()


# The session


async def test_heartbeats_go_on_while_somebody_looks_where_to_start() -> None:
    consumer, listener = Consumer(), Listener()
    beating: list[bool] = []
    listener.meanwhile = lambda: beating.append(consumer.beating)
    await membership(consumer, listener, Holdings()).on_partitions_assigned([PARTITION])
    assert beating == [True]


async def test_a_member_that_was_expired_before_it_is_told_of_its_partitions_takes_none() -> None:
    consumer, listener, holdings = Consumer(), Listener(), Holdings()
    consumer.generation = NO_GENERATION
    await membership(consumer, listener, holdings).on_partitions_assigned([PARTITION])
    assert (listener.told, list(holdings.held), consumer.sought) == ([], [], {})


@pytest.mark.parametrize("generation", [NO_GENERATION, 4])
async def test_a_member_that_was_expired_while_it_looked_where_to_start_delivers_nothing(generation: int) -> None:
    consumer, listener, holdings = Consumer(), Listener(), Holdings()
    member = membership(consumer, listener, holdings)
    await member.on_partitions_assigned([PARTITION])
    await member.on_partitions_revoked([PARTITION])
    consumer.sought.clear()
    listener.told.clear()
    listener.meanwhile = lambda: setattr(consumer, "generation", generation)
    await member.on_partitions_assigned([PARTITION])
    assert listener.told == [("assigned", [0]), ("lost, expired", [0])]
    assert (list(holdings.held), list(holdings.released), consumer.sought) == ([], [], {})


@pytest.mark.parametrize("generation", [NO_GENERATION, 4])
async def test_a_member_that_was_expired_gives_nothing_back_in_good_order(generation: int) -> None:
    consumer, listener, holdings = Consumer(), Listener(), Holdings()
    member = membership(consumer, listener, holdings)
    await member.on_partitions_assigned([PARTITION])
    consumer.generation = generation
    await member.on_partitions_revoked([PARTITION])
    assert listener.told == [("assigned", [0]), ("lost, expired", [0])]
    assert (list(holdings.held), list(holdings.released)) == ([], [])


async def test_whoever_is_not_told_where_to_start_for_long_says_so_until_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    consumer, listener = Consumer(), Listener()
    member = membership(consumer, listener, Holdings())
    listener.gate.clear()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(member.on_partitions_assigned([PARTITION]))
        await listener.asked.wait()
        assert complaint(member) is None
        monkeypatch.setattr(group, "SLOW", 0.0)
        await until(lambda: complaint(member))
        said = complaint(member)
        assert isinstance(said, TransientDriverError)
        assert "where these begin: t[0]" in str(said)
        listener.gate.set()

    assert complaint(member) is None


# Partitions without a leader

THREE = [KafkaPartition("t", number) for number in range(3)]
GONE: list[dict[str, Any]] = [
    {"leaders": {0: 1, 1: -1, 2: 1}},
    {"leaders": {0: 1, 1: None, 2: 1}},
    {"leaders": {0: 1, 1: 2, 2: 1}, "unreachable": {2}},
]


def lose_a_leader(consumer: Consumer, how: dict[str, Any]) -> None:
    for name, value in how.items():
        setattr(consumer, name, value)


def find_a_leader(consumer: Consumer) -> None:
    consumer.leaders, consumer.unreachable = {0: 1, 1: 2, 2: 1}, set()


async def until(condition: Callable[[], object]) -> None:
    with anyio.fail_after(30):
        while not condition():  # noqa: ASYNC110 - of things that tell nobody
            await asyncio.sleep(0)


@pytest.mark.parametrize("how", GONE, ids=["none", "unknown", "unreachable"])
async def test_partitions_with_a_leader_do_not_wait_for_one_without(how: dict[str, Any]) -> None:
    consumer, listener, holdings = Consumer(), Listener(), Holdings()
    lose_a_leader(consumer, how)
    member = membership(consumer, listener, holdings)
    await member.on_partitions_assigned(THREE)
    assert listener.told == [("assigned", [0, 2])]
    assert (set(consumer.sought), list(member.leaderless)) == ({THREE[0], THREE[2]}, [THREE[1]])
    find_a_leader(consumer)
    await until(lambda: not member.leaderless)
    assert listener.told == [("assigned", [0, 2]), ("assigned", [1])]
    assert (consumer.sought, len(holdings.held)) == (dict.fromkeys(THREE, 7), 3)
    await member.close()


async def test_a_leader_that_has_moved_is_found_before_anybody_waits() -> None:
    consumer, listener = Consumer(), Listener()
    consumer.leaders[1] = None
    consumer.looked = lambda: find_a_leader(consumer)
    member = membership(consumer, listener, Holdings())
    await member.on_partitions_assigned(THREE)
    assert listener.told == [("assigned", [0, 1, 2])]


async def test_nobody_is_asked_anything_where_all_have_a_leader() -> None:
    consumer = Consumer()
    await membership(consumer, Listener(), Holdings()).on_partitions_assigned(THREE)
    assert consumer.looks == 0


async def test_what_comes_back_goes_on_also_without_a_leader() -> None:
    consumer, listener, holdings = Consumer(), Listener(), Holdings()
    member = membership(consumer, listener, holdings)
    await member.on_partitions_assigned(THREE)
    await member.on_partitions_revoked(THREE)
    lose_a_leader(consumer, GONE[0])
    await member.on_partitions_assigned(THREE)
    assert (len(holdings.held), list(member.leaderless)) == (3, [])


async def test_a_rebalance_ends_the_waiting_for_a_leader() -> None:
    consumer, listener = Consumer(), Listener()
    lose_a_leader(consumer, GONE[0])
    member = membership(consumer, listener, Holdings())
    await member.on_partitions_assigned(THREE)
    await member.on_partitions_revoked(THREE)
    find_a_leader(consumer)
    await asyncio.sleep(0.02)
    assert listener.told == [("assigned", [0, 2]), ("revoking", [0, 2])]
    assert list(member.leaderless) == []


async def test_a_rebalance_waits_for_who_is_being_told_of_a_partition() -> None:
    consumer, listener = Consumer(), Listener()
    lose_a_leader(consumer, GONE[0])
    member = membership(consumer, listener, Holdings())
    await member.on_partitions_assigned(THREE)
    listener.gate.clear()
    listener.asked.clear()
    find_a_leader(consumer)
    with anyio.fail_after(30):
        await listener.asked.wait()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(member.on_partitions_revoked(THREE))
        await asyncio.sleep(0.01)
        assert listener.told == [("assigned", [0, 2])], "one call at a time"
        listener.gate.set()

    assert listener.told == [("assigned", [0, 2]), ("assigned", [1]), ("revoking", [0, 1, 2])]


@pytest.mark.parametrize("failure", PASSES, ids=repr)
async def test_a_leader_that_does_not_say_where_to_start_holds_up_its_partition_only(failure: Exception) -> None:
    consumer, listener = Consumer(), Listener()
    lose_a_leader(consumer, GONE[0])
    member = membership(consumer, listener, Holdings())
    await member.on_partitions_assigned(THREE)
    listener.failures = [failure, failure]
    find_a_leader(consumer)
    await until(lambda: len(listener.failures) < 2)
    assert (complaint(member), list(member.leaderless)) == (None, [THREE[1]])
    await until(lambda: not member.leaderless)
    assert listener.told[-1] == ("assigned", [1])


@pytest.mark.parametrize("failure", STAYS, ids=repr)
async def test_a_partition_that_can_never_be_assigned_says_so_also_later(failure: Exception) -> None:
    consumer, listener = Consumer(), Listener()
    lose_a_leader(consumer, GONE[0])
    member = membership(consumer, listener, Holdings())
    await member.on_partitions_assigned(THREE)
    listener.failures = [failure]
    find_a_leader(consumer)
    await until(lambda: complaint(member))
    assert complaint(member) is failure


@pytest.mark.parametrize("how", GONE, ids=["none", "unknown", "unreachable"])
async def test_without_a_group_partitions_with_a_leader_do_not_wait_for_one_without(how: dict[str, Any]) -> None:
    consumer: Any = Consumer()
    lose_a_leader(consumer, how)
    holdings = Holdings()
    assignment = ManualAssignment(consumer, Listener(), holdings, read_topics(["t"]), interrupt=lambda: None)
    async with asyncio.TaskGroup() as tasks:
        looking = tasks.create_task(assignment.run())
        await until(lambda: len(holdings.held) == 2)
        assert list(assignment.leaderless) == [THREE[1]]
        find_a_leader(consumer)
        await until(lambda: len(holdings.held) == 3)
        looking.cancel()

    assert (list(assignment.leaderless), consumer.sought) == ([], dict.fromkeys(THREE, 7))


async def test_without_a_group_partitions_that_are_gone_are_read_no_more() -> None:
    consumer: Any = Consumer()
    listener, holdings = Listener(), Holdings()
    assignment = ManualAssignment(consumer, listener, holdings, read_topics(["t"]), interrupt=lambda: None)
    async with asyncio.TaskGroup() as tasks:
        looking = tasks.create_task(assignment.run())
        await until(lambda: len(holdings.held) == 3)
        consumer.leaders = {0: 1}
        await until(lambda: len(holdings.held) == 1)
        await until(lambda: len(listener.told) == 2)
        looking.cancel()

    assert consumer.sought == {THREE[0]: 7}
    assert listener.told[-1] == ("lost, topics_changed", [1, 2])
