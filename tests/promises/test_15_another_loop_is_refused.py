"""Promise 15, for calls that come from another event loop: they would wait for ever, and are errors instead.

In real time: the other loops are in threads of their own.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.from_thread
import anyio.lowlevel
import pytest

from rustmq_sdk import AckResult, Client, Consumer, ConsumerStateError, Message, Producer
from rustmq_sdk._threads import run_in_daemon_thread
from tests.promises.stage import Stage, ack, take


class Entered:
    """A client, its producer and its consumer, entered here; and a message and a batch, received here."""

    def __init__(self, client: Client, producer: Producer, consumer: Consumer) -> None:
        self.client, self.producer, self.consumer = client, producer, consumer
        self.message: Message

    async def receive_nothing(self) -> None:
        await self.consumer.receive(timeout=5)

    async def iterate(self) -> None:
        async for _ in self.consumer:
            pass


CALLS: dict[str, Callable[[Entered], Awaitable[Any]]] = {
    "client.create_topic": lambda on: on.client.create_topic("u"),
    "client.delete_topic": lambda on: on.client.delete_topic("t"),
    "client.topics": lambda on: on.client.topics(),
    "producer.send": lambda on: on.producer.send("u", "m"),
    "producer.send_batch": lambda on: on.producer.send_batch("u", ["m"]),
    "producer.flush": lambda on: on.producer.flush(),
    "consumer.receive": lambda on: on.consumer.receive(),
    "consumer.receive, in time": lambda on: on.consumer.receive(timeout=5),
    "consumer.receive_batch": lambda on: on.consumer.receive_batch(timeout=5),
    "consumer.receive, by iterating": lambda on: on.iterate(),
    "consumer.run": lambda on: on.consumer.run(print),
    "consumer.commit": lambda on: on.consumer.commit(),
    "consumer.seek": lambda on: on.consumer.seek("t", 0, 0),
    "consumer.seek_all": lambda on: on.consumer.seek_all(0),
    "consumer.seek_to_timestamp": lambda on: on.consumer.seek_to_timestamp("t", 0, 0),
    "consumer.committed_offset": lambda on: on.consumer.committed_offset("t", 0),
    "consumer.get_lag": lambda on: on.consumer.get_lag(),
    "consumer.close": lambda on: on.consumer.close(),
    "message.ack(durable=True)": lambda on: on.message.ack(durable=True),
}


@pytest.mark.parametrize("call", CALLS)
async def test_a_call_that_would_wait_in_another_threads_loop_is_refused_at_once(
    stage: Stage, call: str, anyio_backend_name: str
) -> None:
    stage.send(1)
    async with stage.client() as client, client.producer() as producer, client.consumer("t", group="g") as consumer:
        entered = Entered(client, producer, consumer)
        (entered.message,) = await take(consumer, 1)

        async def elsewhere() -> None:
            await CALLS[call](entered)

        with anyio.fail_after(10), pytest.raises(ConsumerStateError) as caught:
            await in_another_loop(anyio_backend_name, elsewhere)

        name = call.partition(".")[0]
        assert f"the {'consumer' if name == 'message' else name} belongs to another event loop" in str(caught.value)
        assert "anyio.from_thread.run(…, token=token)" in str(caught.value)
        assert await entered.message.ack() is AckResult.RECORDED, "nothing has changed"
        assert list(await client.topics()) == ["t"]


async def in_another_loop(backend: str, call: Callable[[], Awaitable[None]]) -> None:
    # Without our context variables, which say that a loop runs already.
    await run_in_daemon_thread(contextvars.Context().run, functools.partial(anyio.run, call, backend=backend))


async def test_a_batch_is_not_settled_by_a_call_that_is_refused(stage: Stage, anyio_backend_name: str) -> None:
    stage.send(2)
    async with stage.consumer() as consumer:
        batch = await consumer.receive_batch(2, max_wait=5)

        async def elsewhere() -> None:
            await batch.ack(durable=True)

        with anyio.fail_after(10), pytest.raises(ConsumerStateError, match="belongs to another event loop"):
            await in_another_loop(anyio_backend_name, elsewhere)

        assert await batch.ack() is AckResult.RECORDED


async def test_from_a_thread_each_call_is_made_where_it_belongs(stage: Stage) -> None:
    stage.send(2)
    token = anyio.lowlevel.current_token()
    async with stage.client() as client, client.producer() as producer, client.consumer("t", group="g") as consumer:

        def thread() -> int | None:
            message = anyio.from_thread.run(consumer.receive, token=token)
            return anyio.from_thread.run(producer.send, "u", message.payload, token=token).offset

        with anyio.fail_after(10):
            assert [await run_in_daemon_thread(thread) for _ in range(2)] == [0, 1]


def test_a_loop_of_the_same_thread_is_another_one_as_well() -> None:
    async def live(entered: list[Any], leave: asyncio.Event) -> None:
        async with Client("memory://") as client, client.producer() as producer:
            entered += [client, producer]
            await leave.wait()

    entered: list[Any] = []
    with asyncio.Runner() as first, asyncio.Runner() as second:
        leave = asyncio.Event()
        loop = first.get_loop()
        life = loop.create_task(live(entered, leave))
        while not entered:
            loop.run_until_complete(asyncio.sleep(0))

        _, producer = entered
        with pytest.raises(ConsumerStateError, match="the producer belongs to another event loop"):
            second.run(producer.send("t", "m"))

        leave.set()
        loop.run_until_complete(life)


@pytest.mark.parametrize("settle", ["ack", "nack", "reject"])
async def test_what_has_to_be_told_is_told_wholly_or_refused(
    stage: Stage, settle: str, anyio_backend_name: str
) -> None:
    stage.send(3)
    async with stage.consumer() as consumer:
        messages = await take(consumer, 3)
        if settle == "ack":
            # Their second ack, with an answer that nobody else waits for.
            await ack(*messages)

        for message in messages:
            with (
                anyio.fail_after(10),
                pytest.raises(ConsumerStateError, match=rf"{settle}\(\): the consumer belongs to"),
            ):
                await in_another_loop(anyio_backend_name, getattr(message, settle))

        await ack(*messages)

    assert stage.committed() == 3


@pytest.mark.parametrize("call", ["pause_partitions", "resume_partitions"])
async def test_partitions_are_paused_and_resumed_by_their_own_thread(stage: Stage, call: str) -> None:
    stage.send(1)
    async with stage.consumer() as consumer:
        await take(consumer, 1)
        with pytest.raises(ConsumerStateError, match=rf"{call}\(\): the consumer belongs to another event loop"):
            await run_in_daemon_thread(getattr(consumer, call), [("t", 0)])

        assert not consumer.paused_partitions


async def test_what_is_at_hand_needs_no_loop(stage: Stage, anyio_backend_name: str) -> None:
    stage.send(3)
    received: list[Message] = []
    async with stage.consumer() as consumer:
        await ack(*await take(consumer, 1))

        async def elsewhere() -> None:
            received.extend([await consumer.receive(), await consumer.receive()])

        with anyio.fail_after(10):
            await in_another_loop(anyio_backend_name, elsewhere)

        await ack(*received)

    assert stage.committed() == 3
