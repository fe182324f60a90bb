"""A block inside a task group whose errors are raised as themselves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from rustmq_sdk._task_groups import raised_as_itself


@asynccontextmanager
async def beside(ended: list[str]) -> AsyncIterator[anyio.CancelScope]:
    """A task beside a block; it ends with the block."""

    async def sleep() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append("task")

    with raised_as_itself() as body:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sleep)
            await anyio.wait_all_tasks_blocked()
            with body:
                yield tasks.cancel_scope

            ended.append("block")
            tasks.cancel_scope.cancel()


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), ExceptionGroup("two", [OSError()])])
async def test_what_the_block_raises_comes_as_itself_after_the_tasks_have_ended(error: BaseException) -> None:
    ended: list[str] = []
    with pytest.raises(type(error)) as caught:
        async with beside(ended):
            raise error

    assert caught.value is error
    assert ended == ["block", "task"]


async def test_a_block_that_ends_well_ends_the_tasks() -> None:
    ended: list[str] = []
    async with beside(ended):
        pass

    assert ended == ["block", "task"]


async def test_a_cancelled_block_cancels_the_tasks_and_stays_cancelled() -> None:
    ended: list[str] = []
    with anyio.CancelScope() as scope:
        async with beside(ended):
            scope.cancel()
            await anyio.lowlevel.checkpoint()

    assert scope.cancelled_caught
    assert ended == ["task"]


async def test_what_a_task_raises_comes_in_its_group() -> None:
    async def fail() -> None:
        raise OSError

    async def wait_beside_it() -> None:
        with raised_as_itself() as body:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(fail)
                with body:
                    await anyio.sleep_forever()

    with pytest.raises(ExceptionGroup) as caught:
        await wait_beside_it()

    assert caught.group_contains(OSError)
