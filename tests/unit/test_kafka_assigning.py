"""An assignment that fails: made again if that may help, and the end of the consumer if not."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

pytest.importorskip("aiokafka")

from aiokafka import TopicPartition as KafkaPartition
from aiokafka.errors import KafkaConnectionError

from rustmq_sdk.drivers.kafka import assigning, manual
from rustmq_sdk.drivers.kafka.assigning import Assigning
from rustmq_sdk.drivers.kafka.group import GroupMembership
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
    monkeypatch.setattr(manual, "LOOK_SECONDS", 0.001)


class Listener:
    """Fails as told, then says where to start."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)

    async def assigned(
        self, partitions: Collection[TopicPartition], generation: int | None, *, reason: str = "assigned"
    ) -> Mapping[Assignment, int | None]:
        if self.failures:
            raise self.failures.pop(0)

        return {Assignment(tp, generation): 7 for tp in partitions}

    async def revoking(self, assignments: Collection[Assignment], budget: float) -> None:
        raise AssertionError("nothing was held")

    async def lost(self, assignments: Collection[Assignment], *, reason: str = "lost") -> None:
        raise AssertionError("nothing was held")


class Consumer:
    """As much of aiokafka's as assigning asks; its group is always in generation 3."""

    def __init__(self) -> None:
        self.rejoins = 0
        self.sought: dict[KafkaPartition, int] = {}
        self._client = self._coordinator = self
        self._conns: dict[int, Any] = {}
        self.generation = 3

    def request_rejoin(self) -> None:
        self.rejoins += 1

    def assign(self, partitions: Collection[KafkaPartition]) -> None:
        self.sought.clear()

    def seek(self, partition: KafkaPartition, offset: int) -> None:
        self.sought[partition] = offset

    def partitions_for_topic(self, topic: str) -> set[int]:
        return {0}

    def force_metadata_update(self) -> asyncio.Future[None]:
        done = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done


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
