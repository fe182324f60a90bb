"""Calls from the island that are made on the user's loop."""

from __future__ import annotations

import asyncio
import random
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
import pytest

from rustmq_sdk._asyncio_island import Island, UserLoop
from rustmq_sdk.errors import IslandClosed, StrayCancellation


@pytest.fixture
async def island() -> AsyncIterator[Island]:
    async with Island("under test", thread=True) as island:
        yield island


@pytest.fixture
async def user_loop() -> UserLoop:
    return UserLoop(patience=2.0)


class Visitor:
    """A call to the user's loop: says when it has begun, and waits there until it is let go or cancelled."""

    def __init__(self) -> None:
        self.begun = anyio.Event()
        self.let_go = anyio.Event()
        self.ended = False

    async def __call__(self) -> str:
        self.begun.set()
        try:
            await self.let_go.wait()
        finally:
            self.ended = True

        return "been there"


async def caught(function: Callable[..., Awaitable[Any]], *args: Any) -> BaseException:
    """On the island: what the call to the user's loop raises there."""
    try:
        await function(*args)
    except BaseException as error:
        return error

    raise AssertionError("it raised nothing")


async def test_a_call_is_made_there_and_answers(island: Island, user_loop: UserLoop) -> None:
    async def whose_thread(word: str) -> tuple[str, threading.Thread]:
        await anyio.lowlevel.checkpoint()
        return word, threading.current_thread()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(user_loop.serve)
        assert await island.run(user_loop.call, whose_thread, "hello") == ("hello", threading.current_thread())
        user_loop.close()


async def test_calls_are_made_one_after_another_in_their_order(island: Island, user_loop: UserLoop) -> None:
    made: list[int] = []
    inside = 0

    async def visit(number: int) -> None:
        nonlocal inside
        inside += 1
        assert inside == 1
        for _ in range(3):
            await anyio.lowlevel.checkpoint()

        inside -= 1
        made.append(number)

    async def call_all() -> None:
        await asyncio.gather(*(user_loop.call(visit, number) for number in range(50)))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(user_loop.serve)
        await island.run(call_all)
        user_loop.close()

    assert made == list(range(50))


async def test_errors_cross_as_they_are(island: Island, user_loop: UserLoop) -> None:
    cause = LookupError("the cause")

    async def fail() -> None:
        raise ValueError("over there") from cause

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(user_loop.serve)
        error = await island.run(caught, user_loop.call, fail)
        assert isinstance(error, ValueError)
        assert error.__cause__ is cause
        user_loop.close()


async def test_a_call_cancelled_on_the_island_has_ended_before_its_caller_goes_on(
    island: Island, user_loop: UserLoop
) -> None:
    visitor = Visitor()
    seen: list[bool] = []

    async def call() -> None:
        try:
            await user_loop.call(visitor)
        finally:
            seen.append(visitor.ended)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(user_loop.serve)
        async with anyio.create_task_group() as calls:
            calls.start_soon(island.run, call)
            await visitor.begun.wait()
            calls.cancel_scope.cancel()

        assert seen == [True]
        visitor.let_go.set()
        assert await island.run(user_loop.call, visitor) == "been there", "it goes on serving"
        user_loop.close()


async def test_a_call_cancelled_before_its_turn_is_not_made(island: Island, user_loop: UserLoop) -> None:
    first, second = Visitor(), Visitor()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(user_loop.serve)
        tasks.start_soon(island.run, user_loop.call, first)
        await first.begun.wait()
        async with anyio.create_task_group() as calls:
            calls.start_soon(island.run, user_loop.call, second)
            await island.run(asyncio.sleep, 0)
            calls.cancel_scope.cancel()

        first.let_go.set()
        await island.run(user_loop.call, anyio.lowlevel.checkpoint)
        user_loop.close()

    assert not second.begun.is_set()


@pytest.mark.parametrize("how", ["close", "cancel"])
async def test_when_it_closes_all_calls_are_told(how: str, island: Island, user_loop: UserLoop) -> None:
    visitors = [Visitor() for _ in range(3)]
    errors: list[BaseException] = []

    async def call(visitor: Visitor) -> None:
        errors.append(await island.run(caught, user_loop.call, visitor))

    async with anyio.create_task_group() as calls, anyio.create_task_group() as tasks:
        tasks.start_soon(user_loop.serve)
        calls.start_soon(call, visitors[0])
        await visitors[0].begun.wait()
        calls.start_soon(call, visitors[1])
        calls.start_soon(call, visitors[2])
        await anyio.wait_all_tasks_blocked()
        await island.run(asyncio.sleep, 0)
        if how == "close":
            user_loop.close()
        else:
            tasks.cancel_scope.cancel()

    assert visitors[0].ended
    assert not visitors[1].begun.is_set()
    assert [type(error) for error in errors] == [IslandClosed] * 3
    assert isinstance(await island.run(caught, user_loop.call, visitors[0]), IslandClosed), "and whoever comes later"


async def test_a_cancellation_there_that_is_nobodys_is_an_error_on_the_island(
    island: Island, user_loop: UserLoop
) -> None:
    async def await_cancelled() -> None:
        raise asyncio.CancelledError

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(user_loop.serve)
        error = await island.run(caught, user_loop.call, await_cancelled)
        assert isinstance(error, StrayCancellation)
        await island.run(user_loop.call, anyio.lowlevel.checkpoint)
        user_loop.close()


async def test_an_exit_there_is_its_own(island: Island, user_loop: UserLoop) -> None:
    errors: list[BaseException] = []

    async def leave() -> None:
        sys.exit(3)

    async def call() -> None:
        errors.append(await island.run(caught, user_loop.call, leave))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        with pytest.raises(SystemExit):
            await user_loop.serve()

    assert isinstance(errors[0], IslandClosed)


async def test_a_blocked_user_loop_keeps_a_cancelled_caller_for_its_patience_only(
    island: Island, caplog: pytest.LogCaptureFixture
) -> None:
    user_loop, visitor, ended = UserLoop(patience=0.05), Visitor(), threading.Event()
    kept: list[asyncio.Task[None]] = []

    async def give_up() -> None:
        try:
            async with asyncio.timeout(0.01):
                await user_loop.call(visitor)
        except TimeoutError:
            ended.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(user_loop.serve)
        await anyio.wait_all_tasks_blocked()
        island.post(lambda: kept.append(asyncio.ensure_future(give_up())))
        assert ended.wait(50), "this blocks the user's loop"
        user_loop.close()

    assert "it is abandoned" in caplog.text


@pytest.mark.parametrize("seed", range(5))
async def test_cancelled_from_both_sides_at_any_moment_everybody_ends(island: Island, seed: int) -> None:
    rng = random.Random(seed)
    inside = 0

    async def visit(turns: int) -> None:
        nonlocal inside
        inside += 1
        try:
            for _ in range(turns):
                await anyio.lowlevel.checkpoint()
        finally:
            inside -= 1

    async def call(user_loop: UserLoop) -> None:
        for _ in range(rng.randrange(4)):
            await user_loop.call(visit, rng.randrange(5))

    async def call_and_give_up(user_loop: UserLoop) -> None:
        tasks = [asyncio.ensure_future(call(user_loop)) for _ in range(3)]
        for task in tasks:
            await asyncio.sleep(0)
            if rng.random() < 0.4:
                task.cancel()

        await asyncio.gather(*tasks, return_exceptions=True)

    for _ in range(20):
        user_loop = UserLoop(patience=2.0)
        with anyio.fail_after(30):
            async with anyio.create_task_group() as calls, anyio.create_task_group() as tasks:
                tasks.start_soon(user_loop.serve)
                calls.start_soon(island.run, call_and_give_up, user_loop)
                for _ in range(rng.randrange(10)):
                    await anyio.sleep(rng.choice((0, 0.0002)))

                rng.choice((user_loop.close, tasks.cancel_scope.cancel, calls.cancel_scope.cancel))()

        assert inside == 0
