from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from typing import Any

import anyio
import pytest
from anyio import wait_all_tasks_blocked
from anyio.lowlevel import checkpoint

from rustmq_sdk._bell import Bell
from rustmq_sdk._runtime.channel import Channel, ChannelFull
from rustmq_sdk.testing.clock import BACKENDS, Backend, virtual_time
from rustmq_sdk.testing.schedules import run


@pytest.fixture(params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, Mapping[str, Any]]:
    return request.param, virtual_time(request.param)


def test_items_come_out_in_the_order_they_were_put() -> None:
    channel: Channel[int] = Channel(3)
    for item in (1, 2, 3):
        channel.put(item)

    assert len(channel) == 3
    assert channel.drain() == [1, 2, 3]
    assert channel.drain() == []
    assert len(channel) == 0


def test_full_is_a_bug() -> None:
    channel: Channel[int] = Channel(2)
    channel.put(1)
    channel.put(2)
    with pytest.raises(ChannelFull, match="2 items"):
        channel.put(3)

    assert isinstance(ChannelFull(), AssertionError)
    assert channel.drain() == [1, 2]
    channel.put(3)


def test_a_channel_for_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Channel[int](0)


async def test_a_bell_is_a_channel_without_items() -> None:
    bell = Bell()
    bell.ring()
    bell.ring()
    assert await bell.wait()
    began = anyio.current_time()
    assert not await bell.wait(5)
    assert anyio.current_time() - began == 5


async def test_a_put_wakes_the_consumer() -> None:
    channel: Channel[str] = Channel(1)
    async with anyio.create_task_group() as tasks:

        async def put() -> None:
            await wait_all_tasks_blocked()
            channel.put("x")

        tasks.start_soon(put)
        assert await channel.wait()

    assert channel.drain() == ["x"]


async def test_what_was_put_before_the_wait_is_reported_until_it_is_taken() -> None:
    channel: Channel[str] = Channel(1)
    channel.put("x")
    assert await channel.wait()
    assert await channel.wait(0)
    channel.drain()
    assert not await channel.wait(0)


@pytest.mark.parametrize("timeout", [0.0, 5.0])
async def test_a_wait_ends_at_its_timeout(timeout: float) -> None:
    channel: Channel[str] = Channel(1)
    began = anyio.current_time()
    assert not await channel.wait(timeout)
    assert anyio.current_time() - began == pytest.approx(timeout)


async def test_a_ring_ends_the_present_wait_and_is_reported_once() -> None:
    channel: Channel[str] = Channel(1)
    async with anyio.create_task_group() as tasks:

        async def ring() -> None:
            await wait_all_tasks_blocked()
            channel.ring()
            channel.ring()

        tasks.start_soon(ring)
        assert await channel.wait()

    assert channel.drain() == []
    assert not await channel.wait(1)


async def test_a_ring_without_a_wait_ends_the_next_one() -> None:
    channel: Channel[str] = Channel(1)
    channel.ring()
    assert await channel.wait()
    assert not await channel.wait(1)


async def test_a_wait_is_always_a_checkpoint() -> None:
    channel: Channel[str] = Channel(1)
    channel.put("x")
    with anyio.CancelScope() as scope:
        scope.cancel()
        await channel.wait()

    assert scope.cancelled_caught
    assert channel.drain() == ["x"]


async def test_a_wait_cancelled_by_a_scope_has_taken_nothing() -> None:
    channel: Channel[str] = Channel(1)
    async with anyio.create_task_group() as tasks:
        reports: list[bool] = []

        async def wait() -> None:
            reports.append(await channel.wait())

        tasks.start_soon(wait)
        await wait_all_tasks_blocked()
        # Both before the waiter runs again.
        channel.ring()
        tasks.cancel_scope.cancel()

    if not reports:
        assert await channel.wait(0)

    assert not await channel.wait(0)


@pytest.mark.parametrize("anyio_backend", [("asyncio", virtual_time("asyncio"))])
async def test_a_wait_cancelled_natively_has_taken_nothing(anyio_backend: object) -> None:
    channel: Channel[str] = Channel(1)
    task = asyncio.get_running_loop().create_task(channel.wait())
    await wait_all_tasks_blocked()
    # The waiter is woken and cancelled before it runs: a queue that hands items over loses one here.
    channel.put("x")
    channel.ring()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert await channel.wait(0)
    assert channel.drain() == ["x"]
    assert not await channel.wait(0)


@pytest.mark.parametrize("anyio_backend", [("asyncio", virtual_time("asyncio"))])
async def test_a_ring_survives_a_natively_cancelled_wait(anyio_backend: object) -> None:
    channel: Channel[str] = Channel(1)
    task = asyncio.get_running_loop().create_task(channel.wait(10))
    await wait_all_tasks_blocked()
    channel.ring()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert await channel.wait(0)


async def test_a_second_consumer_is_refused_and_the_first_goes_on() -> None:
    channel: Channel[str] = Channel(1)
    async with anyio.create_task_group() as tasks:

        async def wait() -> None:
            assert await channel.wait()

        tasks.start_soon(wait)
        await wait_all_tasks_blocked()
        with pytest.raises(RuntimeError, match="one task waits"):
            await channel.wait()

        channel.put("x")


async def test_the_next_consumer_may_wait_when_the_one_before_was_cancelled() -> None:
    channel: Channel[str] = Channel(1)
    with anyio.move_on_after(1):
        await channel.wait()

    assert not await channel.wait(1)


class RungBetweenTwoLines(Channel[str]):
    """A signal arrives right after the consumer has looked: the look itself rings."""

    __slots__ = ("signals",)

    def __init__(self) -> None:
        super().__init__(1)
        self.signals = 1
        self._items = SignalledDeque(self)  # type: ignore[assignment]


class SignalledDeque(list[str]):
    def __init__(self, channel: RungBetweenTwoLines) -> None:
        super().__init__()
        self.channel = channel

    def __len__(self) -> int:
        # Found empty, and the ring comes before the consumer acts on it.
        if self.channel.signals and self.channel._event is not None:
            self.channel.signals -= 1
            self.channel.ring()

        return super().__len__()


async def test_a_ring_between_looking_and_waiting_is_not_lost() -> None:
    channel = RungBetweenTwoLines()
    assert await channel.wait()
    assert channel.signals == 0


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seed", range(10))
def test_nothing_is_lost_between_many_producers_and_a_consumer_that_is_often_cancelled(
    backend: Backend, seed: int
) -> None:
    async def scenario() -> None:
        rng = random.Random(seed)
        channel: Channel[tuple[int, int]] = Channel(40)
        taken: list[tuple[int, int]] = []

        async def produce(producer: int) -> None:
            for number in range(10):
                channel.put((producer, number))
                await (checkpoint() if rng.random() < 0.5 else anyio.sleep(rng.random()))

        async def consume() -> None:
            while len(taken) < 40:
                with anyio.move_on_after(rng.choice([0.0, 0.1, 5.0])):
                    # Without a limit of its own: a lost wake hangs here, and the test ends at its limit.
                    await channel.wait()

                if rng.random() < 0.5:
                    with anyio.CancelScope() as scope:
                        scope.cancel()
                        await channel.wait()

                taken.extend(channel.drain())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(consume)
            for producer in range(4):
                tasks.start_soon(produce, producer)

        assert sorted(taken) == [(producer, number) for producer in range(4) for number in range(10)]
        for producer in range(4):
            assert [number for who, number in taken if who == producer] == list(range(10))

    run(scenario, backend=backend, seed=seed)
