"""What it costs to call an asyncio-only client on another loop: there and back, for a call that does nothing."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest

from rustmq_sdk._asyncio_island import Island, UserLoop

CALLS = 2_000
ANOTHER_LOOP = "a call on another loop"


async def nothing() -> None:
    pass


def test_on_the_callers_own_loop(measure: Callable[..., None], loop: str) -> None:
    if loop == "trio":
        pytest.skip("trio is never the client's own loop")

    async def program() -> None:
        async with Island("bench") as island:
            for _ in range(CALLS):
                await island.run(nothing)

    measure(program, CALLS, table="a call on the caller's own loop")


def test_one_after_another(measure: Callable[..., None]) -> None:
    async def program() -> None:
        async with Island("bench", thread=True) as island:
            for _ in range(CALLS):
                await island.run(nothing)

    measure(program, CALLS, table=ANOTHER_LOOP, bare=True)


def test_a_hundred_at_once(measure: Callable[..., None]) -> None:
    async def ask(island: Island) -> None:
        for _ in range(CALLS // 100):
            await island.run(nothing)

    async def program() -> None:
        async with Island("bench", thread=True) as island, anyio.create_task_group() as tasks:
            for _ in range(100):
                tasks.start_soon(ask, island)

    measure(program, CALLS, table=ANOTHER_LOOP)


def test_from_there_back(measure: Callable[..., None]) -> None:
    async def program() -> None:
        user_loop = UserLoop(patience=1.0)

        async def call_back() -> None:
            for _ in range(CALLS):
                await user_loop.call(nothing)

        async with Island("bench", thread=True) as island, anyio.create_task_group() as tasks:
            tasks.start_soon(user_loop.serve)
            await island.run(call_back)
            user_loop.close()

    measure(program, CALLS, table=ANOTHER_LOOP)
