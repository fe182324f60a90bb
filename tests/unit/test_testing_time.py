"""The test kit's clock and schedules: time jumps, a seed repeats, nobody waits for ever."""

from __future__ import annotations

import random
import time

import anyio
import pytest
from tenacity import wait_random

from rustmq_sdk import Client, RetryPolicy, TopicPartition
from rustmq_sdk._runtime.seeding import seeds
from rustmq_sdk.testing import BACKENDS, run
from rustmq_sdk.testing.clock import Backend

both = pytest.mark.parametrize("backend", BACKENDS)


async def interleaved() -> str:
    """Who of five tasks had its turn when."""
    turns: list[str] = []

    async def work(name: str) -> None:
        for _ in range(4):
            await anyio.lowlevel.checkpoint()
            turns.append(name)

    async with anyio.create_task_group() as tasks:
        for name in "abcde":
            tasks.start_soon(work, name)

    return "".join(turns)


@both
def test_an_hour_passes_in_no_time(backend: Backend) -> None:
    async def sleep() -> float:
        began = anyio.current_time()
        await anyio.sleep(3600)
        return anyio.current_time() - began

    began = time.monotonic()
    assert run(sleep, backend=backend) == pytest.approx(3600)
    assert time.monotonic() - began < 5


@both
def test_timers_fire_in_their_order(backend: Backend) -> None:
    async def timers() -> list[int]:
        fired: list[int] = []

        async def fire(after: int) -> None:
            await anyio.sleep(after)
            fired.append(after)

        async with anyio.create_task_group() as tasks:
            for after in (300, 1, 86_000, 20):
                tasks.start_soon(fire, after)

        return fired

    assert run(timers, backend=backend) == [1, 20, 300, 86_000]


@both
def test_a_timeout_ends_a_wait_in_virtual_time(backend: Backend) -> None:
    async def wait() -> bool:
        with anyio.move_on_after(500) as scope:
            await anyio.sleep_forever()

        return scope.cancelled_caught

    assert run(wait, backend=backend)


@both
def test_a_test_in_which_everybody_waits_fails_at_once(backend: Backend) -> None:
    async def hang() -> None:
        await anyio.Event().wait()

    with pytest.raises(TimeoutError, match="none will do"):
        run(hang, backend=backend)


@both
def test_a_limit_of_ones_own_is_kept(backend: Backend) -> None:
    async def slow() -> str:
        await anyio.sleep(100)
        return "done"

    assert run(slow, backend=backend, limit=101) == "done"
    with pytest.raises(TimeoutError, match="99 s"):
        run(slow, backend=backend, limit=99)


@both
def test_real_time_is_real(backend: Backend) -> None:
    async def sleep() -> None:
        await anyio.sleep(0.02)

    began = time.monotonic()
    run(sleep, backend=backend, virtual=False)
    assert time.monotonic() - began >= 0.02


@both
def test_a_seed_repeats_its_schedule(backend: Backend) -> None:
    for seed in range(5):
        assert run(interleaved, backend=backend, seed=seed) == run(interleaved, backend=backend, seed=seed)


class Delays:
    """An observer."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_retried(self, partition: TopicPartition, offset: int | None, attempt: int, delay: float) -> None:
        self.seen.append(delay)


def delays_of(policy: RetryPolicy, backend: Backend, seed: int | None) -> list[float]:
    """The pauses between the attempts of one message, as two consumers make them."""

    async def retried() -> list[float]:
        delays = Delays()
        async with Client("memory://") as client:
            async with client.producer() as producer:
                await producer.send("t", "x")

            for group in ("one", "other"):
                async with client.consumer("t", group=group, retry=policy, observers=[delays]) as consumer:
                    for _ in range(4):
                        await (await consumer.receive(600)).nack()

        return delays.seen

    return run(retried, backend=backend, seed=seed)


@both
@pytest.mark.parametrize("policy", [RetryPolicy(), RetryPolicy(wait=wait_random(1, 60))])
def test_a_seed_repeats_the_jitter_of_backoff(backend: Backend, policy: RetryPolicy) -> None:
    first = delays_of(policy, backend, 7)
    assert len(set(first)) == 8, "each pause is its own, for both consumers"
    assert delays_of(policy, backend, 7) == first
    assert delays_of(policy, backend, 8) != first
    assert delays_of(policy, backend, None) != delays_of(policy, backend, None)


@both
def test_a_seed_repeats_the_partitions_that_messages_without_a_key_go_to(backend: Backend) -> None:
    async def partitions() -> list[int | None]:
        chosen = []
        async with Client("memory://") as client:
            await client.create_topic("t", 1000)
            for _ in range(5):
                async with client.producer() as producer:
                    chosen.append((await producer.send("t", "x")).partition)

        return chosen

    first = run(partitions, backend=backend, seed=7)
    assert run(partitions, backend=backend, seed=7) == first
    assert len(set(first)) > 1


def test_a_seed_leaves_the_chance_of_others_as_it_was() -> None:
    random.seed(1)
    expected = random.random()
    random.seed(1)
    run(interleaved, seed=7)
    assert random.random() == expected
    assert seeds.get() is None


@both
def test_seeds_differ_in_their_schedules(backend: Backend) -> None:
    assert len({run(interleaved, backend=backend, seed=seed) for seed in range(20)}) > 10


@both
@pytest.mark.parametrize("virtual", [True, False])
def test_every_task_keeps_its_own_order_under_a_seed(backend: Backend, virtual: bool) -> None:
    turns = run(interleaved, backend=backend, seed=3, virtual=virtual)
    assert sorted(turns) == sorted("abcde" * 4)


@both
def test_a_seeded_schedule_finds_a_race(backend: Backend) -> None:
    """Read, wait a turn, write: at some seeds an increment is lost, and at those always."""

    async def count() -> int:
        total = 0

        async def increment(pause: int) -> None:
            nonlocal total
            for _ in range(pause):
                await anyio.lowlevel.checkpoint()

            seen = total
            await anyio.lowlevel.checkpoint()
            total = seen + 1

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(increment, 0)
            tasks.start_soon(increment, 1)

        return total

    found = {seed: run(count, backend=backend, seed=seed) for seed in range(30)}
    assert set(found.values()) == {1, 2}
    assert {seed: run(count, backend=backend, seed=seed) for seed in range(30)} == found


def test_trio_is_left_as_it_was() -> None:
    from trio._core import _run

    before = _run._ALLOW_DETERMINISTIC_SCHEDULING
    state = _run._r.getstate()
    run(interleaved, backend="trio", seed=1)
    assert before == _run._ALLOW_DETERMINISTIC_SCHEDULING
    assert _run._r.getstate() == state


@both
def test_what_the_test_raises_comes_out_as_itself(backend: Backend) -> None:
    async def fail() -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        run(fail, backend=backend)
