"""Members with a name: they come back without a rebalance, and nobody else goes by it."""

from __future__ import annotations

import asyncio

import anyio
import pytest
from aiokafka.client import AIOKafkaClient, CoordinationType
from aiokafka.protocol.group import LeaveGroupRequest

import rustmq_sdk
from rustmq_sdk.drivers.kafka.static_requests import MembersRequest
from tests.kafka.reading import AT_ONCE, SOON, Events, consuming, on_asyncio, on_trio, send_numbers, settle, until
from tests.services.kafka_server import KafkaServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

TAKEN = r"another member .* group_instance_id='one'"


async def read_on(consumer: rustmq_sdk.Consumer) -> None:
    async for message in consumer:
        await message.ack()


async def test_a_static_member_comes_back_without_a_rebalance(kafka: KafkaServer) -> None:
    topic = await kafka.new_topic("static", partitions=2)
    url = f"kafka://{kafka.bootstrap}"
    await send_numbers(url, topic, range(20))
    events = Events()
    async with consuming(url, topic, group=topic, observers=[events]) as stays:
        async with consuming(f"{url}?group_instance_id=one", topic, group=topic) as static:
            await until(lambda: len(stays.assigned_partitions) == len(static.assigned_partitions) == 1)
            theirs = static.assigned_partitions

        before = len(events.rebalances)
        async with consuming(f"{url}?group_instance_id=one", topic, group=topic) as static:
            await until(lambda: static.assigned_partitions == theirs)
            assert len(await settle(static, 1)) == 1

        assert len(events.rebalances) == before, "the others have noticed nothing"
        assert len(stays.assigned_partitions) == 1


async def test_a_member_whose_name_somebody_else_has_ends_and_does_not_fight_back(kafka: KafkaServer) -> None:
    topic = await kafka.new_topic("fenced", partitions=2)
    url = f"kafka://{kafka.bootstrap}?group_instance_id=one"
    await send_numbers(url, topic, range(20))
    events = Events()
    async with consuming(url, topic, group=topic) as first:
        held = await first.receive(timeout=SOON)
        async with consuming(url, topic, group=topic, observers=[events]) as second:
            # What the first one acks before that is its own to commit.
            await until(lambda: len(second.assigned_partitions) == 2)
            with anyio.fail_after(SOON), pytest.raises(rustmq_sdk.PermanentDriverError, match=TAKEN):
                await read_on(first)

            assert await held.ack() is rustmq_sdk.AckResult.STALE
            assert len(set(await settle(second, 20))) == 20
            await second.commit()
            assert len(events.rebalances) == 1, "nobody has taken anything back"


@on_trio
async def test_a_name_that_is_taken_in_the_middle_of_a_rebalance_ends_its_old_owner(kafka: KafkaServer) -> None:
    topic = await kafka.new_topic("fenced", partitions=2)
    url = f"kafka://{kafka.bootstrap}"
    named = f"{url}?group_instance_id=one"
    await send_numbers(url, topic, range(20))
    async with consuming(url, topic, group=topic) as other, consuming(named, topic, group=topic) as first:
        await until(lambda: len(other.assigned_partitions) == len(first.assigned_partitions) == 1)
        held = await first.receive(timeout=SOON)
        async with consuming(url, topic, group=topic):
            await until(lambda: any(reason.code == "rebalancing" for reason in first.health().reasons))
            async with consuming(named, topic, group=topic) as second:
                await held.ack()
                with anyio.fail_after(SOON), pytest.raises(rustmq_sdk.PermanentDriverError, match=TAKEN):
                    await read_on(first)

                await until(lambda: second.health().ok)


@on_asyncio
async def test_a_static_member_that_the_group_has_given_up_joins_again(kafka: KafkaServer) -> None:
    """As after a session without a heartbeat, or when a tool removes it: nobody else has its name."""
    topic = await kafka.new_topic("given-up")
    url = f"kafka://{kafka.bootstrap}?group_instance_id=one"
    await send_numbers(url, topic, range(5))
    events = Events()
    async with consuming(url, topic, group=topic, observers=[events]) as consumer:
        assert await settle(consumer, 5) == list(range(5))
        await members(kafka, topic, remove=True)
        await until(lambda: len(events.rebalances) == 3)
        assert [reason for _, _, reason in events.rebalances] == ["assigned", "expired", "assigned"]
        await send_numbers(url, topic, [5])
        await read_until(consumer, 5)


async def read_until(consumer: rustmq_sdk.Consumer, number: int) -> None:
    while await settle(consumer, 1) != [number]:
        pass


async def members(kafka: KafkaServer, group: str, *, remove: bool = False) -> set[str]:
    """Their names, which the group has given them; aiokafka's tools know asyncio only."""

    async def look() -> set[str]:
        client = AIOKafkaClient(bootstrap_servers=kafka.bootstrap)
        await client.bootstrap()
        try:
            node = await client.coordinator_lookup(CoordinationType.GROUP, group)
            ((*_, found, _),) = (await client.send(node, MembersRequest(group))).groups
            names = {name for name, *_ in found}
            for name in names if remove else ():
                await client.send(node, LeaveGroupRequest(group, name))

            return names
        finally:
            await client.close()

    return await anyio.to_thread.run_sync(asyncio.run, look())


@pytest.mark.parametrize(("before", "after"), [((0,), (0, 1)), ((0, 1), (1,)), ((0,), (1,))])
async def test_a_static_member_comes_back_with_other_topics(
    kafka: KafkaServer, before: tuple[int, ...], after: tuple[int, ...]
) -> None:
    topics = [await kafka.new_topic("static", partitions=2) for _ in range(2)]
    url = f"kafka://{kafka.bootstrap}"

    async def reads(chosen: tuple[int, ...]) -> None:
        names = {topics[number] for number in chosen}
        async with consuming(f"{url}?group_instance_id=one", *names, group=topics[0]) as static:
            await until(lambda: {tp.topic for tp in static.assigned_partitions} == names, within=AT_ONCE)

    async with consuming(url, topics[0], group=topics[0]) as other:
        await until(lambda: other.assigned_partitions)
        (name,) = await members(kafka, topics[0])
        await reads(before)
        await reads(after)
        assert name in await members(kafka, topics[0]), "nobody else was sent away"
