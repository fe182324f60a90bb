"""What a fetch waits for; what every bell promises, test_channel.py holds it to."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest

from rustmq_sdk._bell import FetchBell
from rustmq_sdk.errors import ConsumerStateError

pytestmark = pytest.mark.virtual_time


async def test_what_happens_between_the_look_and_the_wait_is_not_slept_through() -> None:
    bell = FetchBell()
    bell.rearm()
    bell.ring()
    assert await bell.wait(10)
    bell.ring()
    bell.rearm()
    assert not await bell.wait(10), "it was looked at since"


@pytest.mark.parametrize("happens", [FetchBell.ring, FetchBell.end])
async def test_a_wait_ends_at_once_when_something_happens(happens: Callable[[FetchBell], None]) -> None:
    bell, began = FetchBell(), anyio.current_time()

    async def make_it_happen() -> None:
        await anyio.sleep(1)
        happens(bell)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(make_it_happen)
        assert await bell.wait(10)

    assert anyio.current_time() - began == pytest.approx(1)
    assert bell.ended == (happens is FetchBell.end)


async def test_an_end_is_kept_until_the_fetch_has_returned() -> None:
    bell = FetchBell()
    bell.end()
    bell.rearm()
    assert bell.ended


async def test_a_second_waiter_is_refused_and_the_first_is_woken_all_the_same() -> None:
    bell = FetchBell()
    woken: list[bool] = []

    async def wait() -> None:
        woken.append(await bell.wait(10))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(ConsumerStateError, match="two fetches"):
            bell.rearm()

        bell.ring()

    assert woken == [True]
