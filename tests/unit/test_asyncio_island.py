"""Calls to an asyncio loop in a thread: results, errors, cancellation, order."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import random
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest

from rustmq_sdk._asyncio_island import Island
from rustmq_sdk._threads import Reply
from rustmq_sdk.errors import IslandClosed, StrayCancellation

colour: contextvars.ContextVar[str] = contextvars.ContextVar("colour", default="none")


@pytest.fixture
async def island() -> AsyncIterator[Island]:
    async with Island("under test", thread=True) as island:
        yield island


@pytest.fixture
def on_asyncio(anyio_backend_name: str) -> None:
    if anyio_backend_name != "asyncio":
        pytest.skip("about asyncio alone")


class Hanging:
    """A coroutine that says when it has begun, does not end until it is cancelled, and then cleans up."""

    def __init__(self) -> None:
        self.begun = Reply[None]()
        self.ended = False

    async def __call__(self) -> None:
        self.begun.set(None)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            for _ in range(5):
                await asyncio.sleep(0)

            self.ended = True


class Stubborn:
    """A coroutine that takes no notice of being cancelled, until it is released."""

    def __init__(self) -> None:
        self.begun = Reply[None]()
        self.released = asyncio.Event()

    async def __call__(self) -> None:
        self.begun.set(None)
        while not self.released.is_set():
            try:
                await self.released.wait()
            except asyncio.CancelledError:
                continue


class Block:
    """A call that blocks the loop it is made on."""

    def __init__(self) -> None:
        self.begun = Reply[None]()
        self._open = threading.Event()

    def __call__(self) -> None:
        self.begun.set(None)
        assert self._open.wait(50)

    def open(self) -> None:
        self._open.set()


async def open_later(block: Block) -> None:
    await anyio.wait_all_tasks_blocked()
    block.open()


async def add(left: int, right: int) -> int:
    await asyncio.sleep(0)
    return left + right


async def thread() -> threading.Thread:
    return threading.current_thread()


async def test_a_call_is_made_on_an_asyncio_loop_in_one_daemon_thread(island: Island) -> None:
    there = await island.run(thread)
    assert island.is_elsewhere
    assert there is not threading.current_thread()
    assert there.daemon
    assert there.name == "under test"
    assert await island.run(thread) is there
    assert await island.run(add, 1, 2) == 3


async def test_under_asyncio_it_is_the_callers_loop_and_task_unless_a_thread_is_asked_for(
    anyio_backend_name: str,
) -> None:
    async def task() -> asyncio.Task[Any] | None:
        return asyncio.current_task()

    before = threading.active_count()
    async with Island("under test") as island:
        assert island.is_elsewhere == (anyio_backend_name == "trio")
        if anyio_backend_name == "asyncio":
            assert threading.active_count() == before
            assert await island.run(task) is asyncio.current_task()


async def test_errors_cross_as_they_are(island: Island) -> None:
    cause = LookupError("the cause")

    async def fail() -> None:
        raise ValueError("over there") from cause

    with pytest.raises(ValueError, match="over there") as raised:
        await island.run(fail)

    assert raised.value.__cause__ is cause
    assert raised.traceback[-1].name == "fail"


async def test_an_error_that_crossed_lives_no_longer_than_its_handler(island: Island) -> None:
    class OwnError(Exception):
        pass

    async def fail() -> None:
        raise OwnError

    async def remember() -> weakref.ref[BaseException]:
        try:
            await island.run(fail)
        except OwnError as error:
            return weakref.ref(error)

        raise AssertionError

    gc.collect()
    gc.disable()
    try:
        error = await remember()
        await island.run(add, 0, 0)  # the loop over there has let go of the call
        await anyio.wait_all_tasks_blocked()
        assert error() is None
    finally:
        gc.enable()


async def test_an_exit_is_raised_at_the_caller_and_the_loop_goes_on(island: Island) -> None:
    async def leave() -> None:
        sys.exit(3)

    with pytest.raises(SystemExit):
        await island.run(leave)

    assert await island.run(add, 1, 2) == 3


async def test_context_variables_do_not_cross(island: Island) -> None:
    async def paint(value: str) -> str:
        before = colour.get()
        colour.set(value)
        return before

    colour.set("red")
    assert await island.run(paint, "green") == "none"
    assert await island.run(paint, "blue") == "none"
    assert colour.get() == "red"


async def test_anyio_knows_the_loop_over_there_as_asyncios(island: Island) -> None:
    async def nested() -> str:
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(anyio.sleep, 0)

        return anyio.get_cancelled_exc_class().__module__

    assert await island.run(nested) == "asyncio.exceptions"


async def test_a_call_from_the_island_itself_is_an_await(island: Island) -> None:
    async def task() -> asyncio.Task[Any] | None:
        return asyncio.current_task()

    async def nested() -> bool:
        return await island.run(task) is asyncio.current_task()

    assert await island.run(nested)


async def test_calls_begin_in_their_order(island: Island) -> None:
    begun: list[int] = []

    async def begin(number: int) -> None:
        begun.append(number)

    block = Block()
    async with anyio.create_task_group() as tasks:
        island.post(block)
        await block.begun.wait()
        for number in range(0, 40, 2):
            tasks.start_soon(island.run, begin, number)
            await anyio.wait_all_tasks_blocked()
            island.post(lambda number=number: begun.append(number + 1))  # type: ignore[misc]

        assert not begun
        block.open()

    await island.run(add, 0, 0)
    assert begun == list(range(40))


async def test_what_a_posted_call_raises_is_logged_and_the_next_is_made(
    island: Island, caplog: pytest.LogCaptureFixture
) -> None:
    made: list[int] = []
    island.post(lambda: int("no number"))
    island.post(lambda: made.append(1))
    await island.run(add, 0, 0)
    assert made == [1]
    (record,) = caplog.records
    assert record.name == "asyncio"
    assert "no number" in str(record.exc_info)


async def test_many_calls_at_once_get_each_their_own_answer(island: Island) -> None:
    answers: dict[int, int] = {}

    async def ask(first: int) -> None:
        for number in range(first, first + 100):
            answers[number] = await island.run(add, number, number)

    async with anyio.create_task_group() as tasks:
        for first in range(0, 5000, 100):
            tasks.start_soon(ask, first)

    assert answers == {number: 2 * number for number in range(5000)}


async def test_two_islands_are_two_threads(island: Island) -> None:
    async with Island("another", thread=True) as other:
        assert await other.run(thread) is not await island.run(thread)

    assert await island.run(add, 1, 2) == 3


async def test_another_loop_may_call_as_well(island: Island) -> None:
    answers: list[int] = []

    async def ask() -> None:
        answers.append(await island.run(add, 20, 3))

    loops = [threading.Thread(target=anyio.run, args=(ask,), kwargs={"backend": name}) for name in ("asyncio", "trio")]
    for loop in loops:
        loop.start()

    for loop in loops:
        loop.join(10)

    assert answers == [23, 23]


async def test_what_blocks_the_callers_loop_does_not_stop_the_island(island: Island) -> None:
    ticked = threading.Event()
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.001)
            ticks += 1
            if ticks == 50:
                ticked.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(island.run, tick)
        await anyio.wait_all_tasks_blocked()
        assert ticked.wait(50), "this blocks the loop, as a careless handler does"
        tasks.cancel_scope.cancel()


# Cancellation


async def test_a_cancelled_call_has_ended_before_its_caller_goes_on(island: Island) -> None:
    hanging = Hanging()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(island.run, hanging)
        await hanging.begun.wait()
        tasks.cancel_scope.cancel()

    assert hanging.ended


async def test_a_call_that_is_cancelled_before_it_begins_is_not_made(island: Island) -> None:
    block, hanging = Block(), Hanging()
    island.post(block)
    await block.begun.wait()
    async with anyio.create_task_group() as outer, anyio.create_task_group() as tasks:
        tasks.start_soon(island.run, hanging)
        await anyio.wait_all_tasks_blocked()
        outer.start_soon(open_later, block)
        tasks.cancel_scope.cancel()

    await island.run(add, 0, 0)
    assert not hanging.ended


async def test_a_call_that_refuses_to_end_is_abandoned_and_named(caplog: pytest.LogCaptureFixture) -> None:
    async with Island("under test", thread=True, patience=0.05) as island:
        stubborn = Stubborn()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(island.run, stubborn.__call__)
            await stubborn.begun.wait()
            tasks.cancel_scope.cancel()

        (record,) = caplog.records
        assert record.event == "call_abandoned"  # type: ignore[attr-defined]
        assert "Stubborn.__call__ was cancelled and has not ended within 0.1 s" in record.message
        island.post(stubborn.released.set)


async def test_a_failure_while_being_cancelled_is_logged_and_the_cancellation_goes_on(
    island: Island, caplog: pytest.LogCaptureFixture
) -> None:
    begun = Reply[None]()

    async def fail() -> None:
        begun.set(None)
        try:
            await asyncio.sleep(3600)
        finally:
            raise OSError("the answer was lost")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(island.run, fail)
        await begun.wait()
        tasks.cancel_scope.cancel()

    (record,) = caplog.records
    assert "failed while it was being cancelled" in record.message
    assert "the answer was lost" in str(record.exc_info)


async def test_native_cancellations_however_many_wait_for_the_end(island: Island, on_asyncio: None) -> None:
    stubborn = Stubborn()
    task = asyncio.ensure_future(island.run(stubborn))
    await stubborn.begun.wait()
    for _ in range(3):
        task.cancel()
        await anyio.wait_all_tasks_blocked()
        assert not task.done()

    island.post(stubborn.released.set)
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("elsewhere", [True, False])
async def test_a_cancellation_that_is_not_the_callers_is_an_error(
    elsewhere: bool, anyio_backend_name: str, request: pytest.FixtureRequest
) -> None:
    async def await_cancelled() -> None:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    async with Island("under test", thread=elsewhere) as island:
        with pytest.raises(StrayCancellation, match="await_cancelled") as raised:
            await island.run(await_cancelled)

        assert isinstance(raised.value.__cause__, asyncio.CancelledError)
        assert await island.run(add, 1, 2) == 3


async def test_on_the_callers_own_loop_its_cancellation_is_its_own(on_asyncio: None) -> None:
    async with Island("under test") as island:
        hanging = Hanging()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(island.run, hanging)
            await hanging.begun.wait()
            tasks.cancel_scope.cancel()

        task = asyncio.ensure_future(island.run(asyncio.sleep, 3600))
        await anyio.wait_all_tasks_blocked()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("seed", range(10))
async def test_cancelled_at_any_moment_no_call_outlives_its_caller(island: Island, seed: int) -> None:
    rng = random.Random(seed)
    alive = 0

    async def work(turns: int) -> None:
        nonlocal alive
        alive += 1
        try:
            for _ in range(turns):
                await asyncio.sleep(0)
        finally:
            try:
                await asyncio.sleep(0)
            finally:
                alive -= 1

    for _ in range(30):
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                for _ in range(rng.randrange(1, 5)):
                    tasks.start_soon(island.run, work, rng.randrange(20))

                for _ in range(rng.randrange(8)):
                    await anyio.sleep(rng.choice((0, 0, 0.0002)))

                scope.cancel()

        assert alive == 0


# What the caller's own loop does not offer


async def test_the_callers_own_loop_takes_calls_from_itself_alone(on_asyncio: None) -> None:
    errors: list[BaseException] = []

    async with Island("under test") as island:

        async def ask() -> None:
            try:
                await island.run(add, 1, 2)
            except IslandClosed as error:
                errors.append(error)

        await anyio.to_thread.run_sync(anyio.run, ask)

    assert "thread=True" in str(errors[0])


@pytest.mark.parametrize("use", [lambda island: island.run(add, 1, 2), lambda island: island.post(print)])
@pytest.mark.parametrize("elsewhere", [True, False])
async def test_an_island_is_used_while_it_is_entered(use: Callable[[Island], Any], elsewhere: bool) -> None:
    one = Island("under test", thread=elsewhere)

    async def try_it() -> None:
        awaitable = use(one)
        if awaitable is not None:
            await awaitable

    with pytest.raises(IslandClosed):
        await try_it()

    async with one:
        with pytest.raises(IslandClosed, match="entered once"):
            await one.__aenter__()

    with pytest.raises(IslandClosed):
        await try_it()

    await one.__aexit__()
