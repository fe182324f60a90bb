"""What one task waits for, again and again."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest

from rustmq_sdk._bell import Bell
from rustmq_sdk.errors import ConsumerStateError

pytestmark = pytest.mark.virtual_time


async def test_what_happens_between_the_look_and_the_wait_is_not_slept_through() -> None:
    bell = Bell()
    bell.rearm()
    bell.nudge()
    assert await bell.wait(10)
    bell.rearm()
    assert not await bell.wait(10), "it was looked at meanwhile"


@pytest.mark.parametrize("happens", [Bell.nudge, Bell.ring])
async def test_a_wait_ends_at_once_when_something_happens(happens: Callable[[Bell], None]) -> None:
    bell, began = Bell(), anyio.current_time()

    async def make_it_happen() -> None:
        await anyio.sleep(1)
        happens(bell)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(make_it_happen)
        assert await bell.wait(10)

    assert anyio.current_time() - began == pytest.approx(1)
    assert bell.rung == (happens is Bell.ring)


async def test_a_ring_is_kept_until_the_waiter_has_returned() -> None:
    bell = Bell()
    bell.ring()
    bell.rearm()
    assert bell.rung


async def test_a_second_waiter_is_refused_and_the_first_is_woken_all_the_same() -> None:
    bell = Bell()
    woken: list[bool] = []

    async def wait() -> None:
        woken.append(await bell.wait(10))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(ConsumerStateError, match="two fetches"):
            bell.rearm()

        with pytest.raises(ConsumerStateError, match="two fetches"):
            await bell.wait(10)

        bell.nudge()

    assert woken == [True]
