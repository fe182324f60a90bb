"""What a memory:// URL means, and what of the in-memory broker no contract speaks of."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping

import anyio
import pytest

from rustmq_sdk.drivers.memory import MemoryBroker, MemoryDriver, forget
from rustmq_sdk.drivers.memory import open as open_memory
from rustmq_sdk.errors import ConfigurationError, ConsumerStateError, PermanentDriverError, UnknownTopic
from rustmq_sdk.slots import Ack, AnySubscription, LogSubscription, Receipt, SettleOutcome, SourceRequest
from rustmq_sdk.testing import BACKENDS, RecordingListener, run
from rustmq_sdk.testing.clock import Backend
from rustmq_sdk.values import Assignment, Checkpoint, CommitOutcome, OutgoingMessage, ProducerSequence, TopicPartition

pytestmark = pytest.mark.virtual_time

TP = TopicPartition("topic", 0)
REQUEST = SourceRequest(topics=["topic"], group="group", lease=30, revoke_budget=5)


@pytest.fixture
def name() -> Iterator[str]:
    yield "a-broker"
    forget("a-broker")


async def append(driver: MemoryDriver, *payloads: bytes) -> None:
    await driver.sink().append("topic", 0, [OutgoingMessage(payload) for payload in payloads], sequence=None)


async def test_one_name_is_one_broker_and_no_name_is_ones_own(name: str) -> None:
    async with (
        open_memory(f"memory://{name}") as one,
        open_memory(f"memory://{name}") as same,
        open_memory("memory://") as private,
        open_memory("memory://") as other,
    ):
        await append(one, b"x")
        await append(private, b"x")
        assert same.broker.topics() == {"topic": 1}
        assert other.broker.topics() == {}


async def test_a_broker_outlives_its_drivers_until_it_is_forgotten(name: str) -> None:
    async with open_memory(f"memory://{name}") as driver:
        await append(driver, b"x")

    async with open_memory(f"memory://{name}") as driver:
        assert driver.broker.topics() == {"topic": 1}

    forget(name)
    async with open_memory(f"memory://{name}") as driver:
        assert driver.broker.topics() == {}


@pytest.mark.parametrize(
    ("url", "field"),
    [
        ("memory://?knid=queue", "knid"),
        ("memory://?kind=stream", "kind"),
        ("memory://?max_messages=0", "max_messages"),
        ("memory://?max_messages=many", "max_messages"),
        ("memory://?checkpoint_room=-1", "checkpoint_room"),
        ("memory://?without=flying", "without"),
        ("memory://name/path", "url"),
    ],
)
def test_a_wrong_option_is_refused_by_name(url: str, field: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        open_memory(url)

    assert refusal.value.field == field
    assert refusal.value.fix


def test_options_stand_in_the_url() -> None:
    assert open_memory("memory://?kind=queue").capabilities.kind == "queue"
    assert open_memory("memory://?kind=queue&max_messages=9").capabilities.kind == "queue"
    lesser = open_memory("memory://?without=read,seek&checkpoint_room=9").capabilities
    assert (lesser.read, lesser.seek, lesser.offsets_at, lesser.checkpoint_room) == (False, False, True, 9)


async def test_a_driver_that_is_not_entered_says_so() -> None:
    driver = open_memory("memory://")
    with pytest.raises(ConsumerStateError, match="async with"):
        driver.sink()

    async with driver:
        driver.sink()

    with pytest.raises(ConsumerStateError, match="async with"):
        driver.source(REQUEST)


async def test_a_broker_in_use_refuses_another_thread(name: str) -> None:
    refusals: list[Exception] = []

    async def enter() -> None:
        async with open_memory(f"memory://{name}"):
            pass

    def elsewhere() -> None:
        try:
            anyio.run(enter)
        except ConsumerStateError as error:
            refusals.append(error)

    async with open_memory(f"memory://{name}"):
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()

    assert "another thread" in str(refusals[0])
    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert len(refusals) == 1, "nobody uses it any more"


async def test_retention_keeps_the_newest() -> None:
    async with open_memory("memory://?max_messages=3") as driver:
        await append(driver, *(b"%d" % number for number in range(5)))
        log = driver.broker.log(TP, operation="test")
        assert (log.start, log.end) == (2, 5)


async def test_compaction_leaves_holes_and_reading_names_them() -> None:
    async with open_memory("memory://") as driver:
        await append(driver, *(b"%d" % number for number in range(5)))
        driver.broker.compact("topic", 0, [1, 2])
        listener = RecordingListener()
        async with driver.source(REQUEST).subscribe(listener) as subscription:
            listener.subscription = subscription
            await listener.until(lambda: TP in listener.assignments, 10)
            wanted = list(listener.assignments.values())
            (piece,) = await subscription.fetch(wanted, max_messages=9, max_bytes=99, max_wait=0)
            assert (list(piece.offsets), piece.next_offset, list(piece.gone)) == ([0, 3, 4], 5, [])
            again = await as_log(subscription).read(wanted[0], [0, 1, 2])
            assert [(lost.first, lost.end) for lost in again.gone] == [(1, 3)]


async def test_a_deleted_topic_is_lost_and_comes_back_empty() -> None:
    async with open_memory("memory://") as driver:
        await append(driver, b"old")
        listener = RecordingListener()
        async with driver.source(REQUEST).subscribe(listener) as subscription:
            listener.subscription = subscription
            await listener.until(lambda: TP in listener.assignments, 10)
            old = listener.assignments[TP]
            await as_log(subscription).commit({old: Checkpoint(1)})
            await driver.admin().delete_topic("topic")
            await listener.until(lambda: old in listener.gone, 10)
            with pytest.raises(UnknownTopic, match="there is no topic 'topic'"):
                await as_log(subscription).end_offsets([TP])

            await append(driver, b"new")
            await listener.until(lambda: TP in listener.assignments, 10)
            assert await as_log(subscription).committed([TP]) == {TP: None}
            assert await as_log(subscription).commit({old: Checkpoint(9)}) == {old: CommitOutcome.FENCED}


async def test_a_partition_that_was_taken_is_fetched_no_more() -> None:
    async with open_memory("memory://") as driver:
        await append(driver, b"x")
        listener = RecordingListener()
        async with driver.source(REQUEST).subscribe(listener) as subscription:
            listener.subscription = subscription
            await listener.until(lambda: TP in listener.assignments, 10)
            driver.broker.expire("group")
            wanted = list(listener.assignments.values())
            assert not await subscription.fetch(wanted, max_messages=1, max_bytes=9, max_wait=0)


async def test_a_member_that_was_woken_as_it_left_does_not_join_again() -> None:
    async with open_memory("memory://") as driver:
        await append(driver, b"x")
        listener = RecordingListener()
        async with driver.source(REQUEST).subscribe(listener) as subscription:
            listener.subscription = subscription
            await listener.until(lambda: TP in listener.assignments, 10)
            await anyio.wait_all_tasks_blocked()
            driver.broker.rebalance("group")

        assert not driver.broker.group("group").members
        assert not driver.broker.group("group").state()


async def test_an_eager_rebalance_waits_for_the_last_to_give_up() -> None:
    drained = anyio.Event()

    async def drain(assignments: Collection[Assignment], budget: float) -> None:
        await drained.wait()

    async with open_memory("memory://") as driver:
        driver.broker.create_topic("topic", 2)
        quick, slow = RecordingListener(), RecordingListener()
        async with driver.source(REQUEST).subscribe(quick) as one, driver.source(REQUEST).subscribe(slow) as other:
            quick.subscription, slow.subscription = one, other
            for listener in (quick, slow):
                await listener.until(lambda listener=listener: len(listener.assignments) == 1, 10)  # type: ignore[misc]

            slow.on_revoking = drain
            driver.broker.rebalance("group")
            await anyio.wait_all_tasks_blocked()
            assert quick.released
            assert not quick.assignments
            drained.set()
            for listener in (quick, slow):
                await listener.until(lambda listener=listener: len(listener.assignments) == 1, 10)  # type: ignore[misc]


async def test_members_are_told_why_partitions_come_and_go() -> None:
    async with open_memory("memory://") as driver:
        driver.broker.create_topic("topic", 2)
        first, second = RecordingListener(), RecordingListener()
        async with driver.source(REQUEST).subscribe(first) as first.subscription:
            await first.until(lambda: len(first.assignments) == 2, 10)
            async with driver.source(REQUEST).subscribe(second) as second.subscription:
                await second.until(lambda: len(second.assignments) == 1, 10)

            await first.until(lambda: len(first.assignments) == 2, 10)
            driver.broker.expire("group")
            await first.until(lambda: first.calls[-1].reason == "joined", 10)
            driver.broker.delete_topic("topic")
            await first.until(lambda: not first.assignments, 10)
            driver.broker.create_topic("topic", 1)
            await first.until(lambda: bool(first.assignments), 10)

    told = [call.reason for call in first.calls if call.reason is not None]
    assert told == ["joined", "moved", "left", "expired", "joined", "topics_changed", "topics_changed"]
    assert [call.reason for call in second.calls] == ["moved"]


async def test_what_a_listener_raises_comes_out_of_the_next_fetch() -> None:
    class Failing(RecordingListener):
        async def assigned(
            self, partitions: Collection[TopicPartition], generation: int | None, *, reason: str = "assigned"
        ) -> Mapping[Assignment, int | None]:
            raise LookupError("mine")

    async with open_memory("memory://") as driver:
        await append(driver, b"x")
        async with driver.source(REQUEST).subscribe(Failing()) as subscription:
            with pytest.raises(LookupError, match="mine"):
                await subscription.fetch([], max_messages=1, max_bytes=1, max_wait=100)


async def test_a_listener_has_to_answer_for_every_partition() -> None:
    class Forgetful(RecordingListener):
        async def assigned(
            self, partitions: Collection[TopicPartition], generation: int | None, *, reason: str = "assigned"
        ) -> Mapping[Assignment, int | None]:
            return {}

    async with open_memory("memory://") as driver:
        await append(driver, b"x")
        async with driver.source(REQUEST).subscribe(Forgetful()) as subscription:
            with pytest.raises(ConsumerStateError, match=r"topic\[0\]"):
                await subscription.fetch([], max_messages=1, max_bytes=1, max_wait=100)


@pytest.mark.parametrize("kind", [LookupError, pytest.fail.Exception])
async def test_what_the_body_raises_is_not_wrapped_in_a_group(kind: type[BaseException]) -> None:
    async with open_memory("memory://") as driver:
        with pytest.raises(kind, match="mine"):
            async with driver.source(REQUEST).subscribe(RecordingListener()):
                raise kind("mine")


async def test_a_cancelled_body_leaves_the_group() -> None:
    async with open_memory("memory://") as driver:
        with anyio.move_on_after(1) as scope:
            async with driver.source(REQUEST).subscribe(RecordingListener()):
                await anyio.sleep_forever()

        assert scope.cancelled_caught
        assert not driver.broker.group("group").members


async def test_two_fetches_at_once_are_refused() -> None:
    async with (
        open_memory("memory://") as driver,
        driver.source(REQUEST).subscribe(RecordingListener()) as subscription,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(_fetch_for_long, subscription)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(ConsumerStateError, match="two fetches"):
            await subscription.fetch([], max_messages=1, max_bytes=1, max_wait=1)

        subscription.wake()


async def test_a_checkpoint_beyond_the_room_is_refused() -> None:
    async with open_memory("memory://?checkpoint_room=3") as driver:
        await append(driver, b"x")
        listener = RecordingListener()
        async with driver.source(REQUEST).subscribe(listener) as subscription:
            listener.subscription = subscription
            await listener.until(lambda: TP in listener.assignments, 10)
            with pytest.raises(ConsumerStateError, match="room for 3"):
                await as_log(subscription).commit({listener.assignments[TP]: Checkpoint(0, b"four")})


async def test_a_sequence_used_twice_for_different_appends_is_refused() -> None:
    async with open_memory("memory://") as driver:
        sink = driver.sink()
        three = [OutgoingMessage(b"x")] * 3
        await sink.append("topic", 0, three, sequence=ProducerSequence(b"p", 0))
        for first, messages in ((1, three), (0, three[:1])):
            with pytest.raises(PermanentDriverError, match="does not follow"):
                await sink.append("topic", 0, messages, sequence=ProducerSequence(b"p", first))


@pytest.mark.parametrize("second", BACKENDS)
@pytest.mark.parametrize("first", BACKENDS)
def test_a_lease_keeps_its_length_when_another_loop_takes_over(first: Backend, second: Backend) -> None:
    """Loops count time from different origins: while nobody has the broker open, its time stands still."""
    broker = MemoryBroker()
    queue = open_memory("memory://?kind=queue").capabilities
    receipts: list[Receipt] = []

    async def lease() -> None:
        await anyio.sleep(1234)
        async with MemoryDriver(broker, queue) as driver:
            await append(driver, b"x")
            listener = RecordingListener()
            async with driver.source(REQUEST).subscribe(listener) as subscription:
                listener.subscription = subscription
                await listener.until(lambda: bool(listener.assignments), 10)
                wanted = list(listener.assignments.values())
                (piece,) = await subscription.fetch(wanted, max_messages=1, max_bytes=9, max_wait=0)
                receipts.extend(piece.receipts)

            await anyio.sleep(10)

    async def wait_for_it() -> float:
        async with MemoryDriver(broker, queue) as driver:
            began = anyio.current_time()
            listener = RecordingListener()
            async with driver.source(REQUEST).subscribe(listener) as subscription:
                listener.subscription = subscription
                await listener.until(lambda: bool(listener.assignments), 10)
                wanted = list(listener.assignments.values())
                assert await subscription.fetch(wanted, max_messages=1, max_bytes=9, max_wait=100)
                outcome = await subscription.settle([Ack(receipts[0])])  # type: ignore[union-attr]
                assert outcome == [SettleOutcome.LOST]
                return anyio.current_time() - began

    run(lease, backend=first)
    assert run(wait_for_it, backend=second) == pytest.approx(20, abs=0.1)


async def test_letters_can_be_read_as_messages_of_their_topic() -> None:
    from rustmq_sdk.testing.contracts.dead_letters import letter

    async with open_memory("memory://") as driver:
        await driver.dead_letters("topic").put([letter("id-1")])
        (record,) = driver.broker.log(TP, operation="test").cut(0, 9, 9999, at_least_one=True).records
        headers = dict(record[2])
        assert record[:2] == (b"\xff\x00payload", b"key")
        assert headers["rustmq-dead-letter-id"] == b"id-1"
        assert headers["rustmq-dead-letter-topic"] == "grüße".encode()
        assert headers["rustmq-dead-letter-attempts"] == b"5"


def as_log(subscription: object) -> LogSubscription:
    assert hasattr(subscription, "commit")
    return subscription  # type: ignore[return-value]


async def _fetch_for_long(subscription: AnySubscription) -> None:
    assert not await subscription.fetch([], max_messages=1, max_bytes=1, max_wait=1e5)
