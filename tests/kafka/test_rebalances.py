"""A group in turmoil, and what users do in the middle of a rebalance: nothing is lost, and nothing hangs."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import anyio
import pytest

import rustmq_sdk
from tests.kafka.crowd import Crowd, Turmoil
from tests.kafka.reading import AT_ONCE, SOON, Events, consuming, send_numbers, settle, until
from tests.services.kafka_server import KafkaServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


async def test_nothing_is_lost_while_members_join_and_leave(kafka: KafkaServer, tmp_path: Path) -> None:
    topic = await kafka.new_topic("turmoil", partitions=6)
    crowd = Crowd(f"kafka://{kafka.bootstrap}", tmp_path, Turmoil(topic, seconds=6, every=0.6, changes=7))
    account = await crowd.run()
    assert account.sound, str(account)
    assert crowd.changes >= 7
    assert account.stored > 100
    assert set(account.again) <= {"its attempt had failed", "unsettled when cancelled"}


class Group:
    """A member with messages in hand, and a way to begin a rebalance that waits for them.

    The second member's JoinGroup takes all partitions from the first one, whose callback waits for what ``receive()``
    has handed out.
    """

    def __init__(self, url: str, topic: str) -> None:
        self.url = url
        self.topic = topic
        self._other: rustmq_sdk.Consumer | None = None

    async def rebalance(self, tasks: anyio.abc.TaskGroup, first: rustmq_sdk.Consumer) -> anyio.Event:
        """Begins one; answers what ends the second member."""
        done = anyio.Event()
        tasks.start_soon(self._second, done)
        await until(lambda: any(reason.code == "rebalancing" for reason in first.health().reasons))
        return done

    async def is_the_others(self) -> None:
        """Returns when the second member has all partitions: the first has told the group, or it would take a lease."""
        await until(lambda: self._other and len(self._other.assigned_partitions) == 2, within=AT_ONCE)

    async def _second(self, done: anyio.Event) -> None:
        async with consuming(self.url, self.topic, group=self.topic) as second:
            self._other = second
            while not done.is_set():
                with suppress(TimeoutError):
                    await (await second.receive(timeout=0.2)).ack()


@pytest.fixture
async def group(kafka: KafkaServer) -> Group:
    topic = await kafka.new_topic("interrupted", partitions=2)
    url = f"kafka://{kafka.bootstrap}"
    for partition in range(2):
        await send_numbers(url, topic, range(100 * partition, 100 * partition + 20), partition=partition)

    return Group(url, topic)


async def test_a_stop_in_the_middle_of_a_rebalance_ends_at_once(group: Group) -> None:
    with anyio.fail_after(SOON):
        async with anyio.create_task_group() as tasks:
            async with consuming(group.url, group.topic, group=group.topic) as first:
                message = await first.receive()
                done = await group.rebalance(tasks, first)
                first.stop()
                with pytest.raises(rustmq_sdk.ConsumerClosed):
                    await first.receive()

                began = anyio.current_time()
                await message.ack()

            assert anyio.current_time() - began < AT_ONCE
            await group.is_the_others()
            done.set()


async def test_a_scope_that_is_cancelled_in_the_middle_of_a_rebalance_leaves_at_once(group: Group) -> None:
    with anyio.fail_after(SOON):
        async with anyio.create_task_group() as tasks:
            with anyio.CancelScope() as scope:
                async with consuming(group.url, group.topic, group=group.topic) as first:
                    await first.receive()
                    done = await group.rebalance(tasks, first)
                    scope.cancel()
                    began = anyio.current_time()
                    await first.receive()

            assert scope.cancelled_caught
            assert anyio.current_time() - began < AT_ONCE
            await group.is_the_others()
            done.set()


async def test_a_member_that_still_waits_to_be_let_in_leaves_at_once(group: Group) -> None:
    with anyio.fail_after(SOON):
        async with consuming(group.url, group.topic, group=group.topic) as first:
            message = await first.receive()
            async with consuming(group.url, group.topic, group=group.topic):
                # Its JoinGroup is answered when the first member has settled what it has in hand.
                await until(lambda: any(reason.code == "rebalancing" for reason in first.health().reasons))
                began = anyio.current_time()

            assert anyio.current_time() - began < AT_ONCE
            await message.ack()
            await until(lambda: len(first.assigned_partitions) == 2)


async def test_a_commit_in_the_middle_of_a_rebalance_returns(group: Group) -> None:
    with anyio.fail_after(SOON):
        async with (
            anyio.create_task_group() as tasks,
            consuming(group.url, group.topic, group=group.topic, commit_interval=60.0) as first,
        ):
            held, acked = await first.receive(), await first.receive()
            done = await group.rebalance(tasks, first)
            await acked.ack()
            with anyio.fail_after(AT_ONCE):
                await first.commit()

            assert await held.ack(durable=True) is rustmq_sdk.AckResult.DURABLE
            done.set()


async def test_a_seek_in_the_middle_of_a_rebalance_is_obeyed(group: Group) -> None:
    with anyio.fail_after(SOON):
        async with consuming(group.url, group.topic, group=group.topic) as first, anyio.create_task_group() as tasks:
            first.pause_partitions([(group.topic, 1)])
            held = await first.receive()
            done = await group.rebalance(tasks, first)
            await first.seek(group.topic, 0, 15)
            assert await held.ack() is rustmq_sdk.AckResult.STALE
            # Nothing is in hand any more, so the rebalance goes on; the second member leaves, and all comes back.
            done.set()
            first.resume_partitions([(group.topic, 1)])
            await until(lambda: len(first.assigned_partitions) == 2)
            await until(
                lambda: first.statistics().partitions[rustmq_sdk.TopicPartition(group.topic, 0)].watermark >= 15
            )


async def test_a_pause_survives_a_rebalance(group: Group) -> None:
    with anyio.fail_after(SOON):
        async with consuming(group.url, group.topic, group=group.topic) as first, anyio.create_task_group() as tasks:
            await until(lambda: len(first.assigned_partitions) == 2)
            both = first.assigned_partitions
            first.pause_partitions(both)
            async with consuming(group.url, group.topic, group=group.topic) as second:
                await until(lambda: len(first.assigned_partitions) == len(second.assigned_partitions) == 1)
                assert first.paused_partitions == both
                with pytest.raises(TimeoutError):
                    await first.receive(timeout=1)

                await settle(second, 10)

            await until(lambda: len(first.assigned_partitions) == 2)
            with pytest.raises(TimeoutError):
                await first.receive(timeout=1)

            first.resume_partitions(both)
            assert len(set(await settle(first, 30))) == 30
            tasks.cancel_scope.cancel()


async def test_what_runs_in_a_kept_partition_is_adopted_and_not_run_twice(group: Group) -> None:
    """Handlers that take longer than the rebalance waits: those of the partition that comes back go on."""
    events, begun, release = Events(), list[int](), anyio.Event()

    async def handle(message: rustmq_sdk.Message) -> None:
        begun.append(int(message.text()))
        await release.wait()

    with anyio.fail_after(SOON):
        async with (
            consuming(group.url, group.topic, group=group.topic, observers=[events], close_timeout=2.0) as first,
            anyio.create_task_group() as tasks,
        ):

            async def run() -> None:
                await first.run(handle, concurrency=24, ordering="none")

            tasks.start_soon(run)
            await until(lambda: len(begun) == 24)
            done = await group.rebalance(tasks, first)
            # The revoke budget is over; one partition is the other member's now, and one has come back.
            await until(lambda: len(first.assigned_partitions) == 1)
            done.set()
            await until(lambda: len(first.assigned_partitions) == 2)
            release.set()
            await until(lambda: first.statistics().in_flight == 0)
            first.stop()

    lost = {tp.partition for _, tps, _ in events.rebalances for tp in tps}
    assert len(lost) == 1, events.rebalances
    kept = [number for number in begun if number // 100 not in lost]
    assert set(kept) & set(begun[:24]), "some of both partitions were at work"
    assert len(kept) == len(set(kept)), "run once"


async def test_a_member_that_has_nothing_to_read_leaves_at_once(kafka: KafkaServer) -> None:
    topic = await kafka.new_topic("idle")
    url = f"kafka://{kafka.bootstrap}?fetch_max_wait=20"  # the broker answers nothing else on that connection meanwhile
    await send_numbers(url, topic, [1])
    async with consuming(url, topic, group=topic, lease=60.0) as first:
        await settle(first, 1)
        await first.commit()

    async with consuming(url, topic, group=topic) as second:
        await until(lambda: second.assigned_partitions, within=AT_ONCE)
