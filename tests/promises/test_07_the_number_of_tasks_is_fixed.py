"""Promise 7: the number of tasks does not grow with messages; ``run()`` adds exactly its concurrency."""

from __future__ import annotations

from collections import Counter

import anyio
import pytest

from rustmq_sdk import Message, Messages, RetryPolicy
from tests.promises.stage import DLQ, Stage, in_background, passes, take, until

pytestmark = pytest.mark.virtual_time


def tasks() -> int:
    return len(anyio.get_running_tasks())


@pytest.mark.parametrize("dead_letter_topic", [None, DLQ])
async def test_a_consumer_has_one_task_for_each_duty(either: Stage, dead_letter_topic: str | None) -> None:
    async with either.client() as client:
        before = tasks()
        async with client.consumer("t", group="g", dead_letter_topic=dead_letter_topic):
            await passes(10)
            names = Counter(task.name for task in anyio.get_running_tasks() if "rustmq_sdk " in str(task.name))
            duties = ["subscription", "fetcher", "ack-handler", "redelivery"]
            duties += ["leases"] if either.kind == "queue" else []
            duties += ["dead letters"] if dead_letter_topic else []
            assert names == Counter(f"rustmq_sdk {duty}" for duty in duties)
            assert tasks() - before == len(duties) + 1  # the membership, the driver's

        assert tasks() == before


async def test_it_is_the_same_at_10_and_at_10_000_messages(either: Stage) -> None:
    counts: set[int] = set()
    async with either.consumer(retry=RetryPolicy(initial=5), dead_letter_topic=DLQ) as consumer:
        for total in (10, 10_000):
            either.send(total)
            messages = await take(consumer, total)
            counts.add(tasks())
            for number, message in enumerate(messages):
                if number % 10 == 0:
                    await message.nack()
                elif number % 10 == 1:
                    await message.reject()
                else:
                    await message.ack()

                if number % 1000 == 0:
                    counts.add(tasks())

            await passes(0.5)
            counts.add(tasks())
            await passes(20)
            counts.add(tasks())
            for message in await take(consumer, total // 10):
                await message.ack()

            await passes(3)
            counts.add(tasks())

    assert len(counts) == 1


@pytest.mark.parametrize("concurrency", [1, 8, 100])
@pytest.mark.parametrize("batch_size", [None, 20])
async def test_run_adds_exactly_its_concurrency(either: Stage, concurrency: int, batch_size: int | None) -> None:
    either.send(2000)
    during: set[int] = set()
    handled = 0

    async def handler(message: Message | Messages) -> None:
        nonlocal handled
        await passes(0.01)
        handled += len(message) if isinstance(message, Messages) else 1
        during.add(tasks())

    async with either.consumer() as consumer, anyio.create_task_group() as group:
        await passes(1)
        # The task that calls run() is the test's.
        before = tasks() + 1
        await in_background(
            group, lambda: consumer.run(handler, concurrency=concurrency, batch_size=batch_size, ordering="none")
        )
        assert tasks() - before == concurrency
        await until(lambda: handled == 2000)
        assert {count - before for count in during} == {concurrency}
        consumer.stop()
        await passes(1)
        assert tasks() == before - 1


async def test_waiting_receivers_add_none(either: Stage) -> None:
    async with either.consumer() as consumer, anyio.create_task_group() as group:
        await passes(1)
        before = tasks()
        for _ in range(50):
            group.start_soon(consumer.receive, 20)

        await passes(10)
        assert tasks() - before == 50
        either.send(50)
        await passes(1)
        assert tasks() == before
