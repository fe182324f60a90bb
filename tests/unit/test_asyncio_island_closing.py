"""How an island ends: in order, inside its deadline, and when its loop, its process or the caller's loop has gone."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from rustmq_sdk._asyncio_island import Island
from rustmq_sdk._threads import Reply
from rustmq_sdk.errors import IslandClosed


def closing_island() -> Island:
    return Island("under test", thread=True, patience=5.0)


def impatient_island() -> Island:
    return Island("under test", thread=True, patience=0.05)


def its_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "under test"]


class Waiting:
    """A coroutine that says when it has begun, and whether it has ended."""

    def __init__(self) -> None:
        self.begun = Reply[None]()
        self.ended = False

    async def __call__(self) -> None:
        self.begun.set(None)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.ended = True


async def test_a_closed_island_leaves_no_thread_and_no_task() -> None:
    left_behind = Waiting()
    tasks: list[asyncio.Task[None]] = []

    async def start() -> None:
        tasks.append(asyncio.ensure_future(left_behind()))

    async with closing_island() as island:
        await island.run(start)
        await left_behind.begun.wait()

    assert left_behind.ended
    assert tasks[0].cancelled()
    assert not its_threads()


async def test_what_is_started_by_what_ends_is_ended_too() -> None:
    cleaner, begun = Waiting(), Reply[None]()

    async def work() -> None:
        begun.set(None)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            tasks.append(asyncio.ensure_future(cleaner()))

    async def start() -> None:
        tasks.append(asyncio.ensure_future(work()))

    tasks: list[asyncio.Task[None]] = []
    async with closing_island() as island:
        await island.run(start)
        await begun.wait()

    assert [task.cancelled() for task in tasks] == [True, True]


async def test_async_generators_over_there_are_closed() -> None:
    closed = False

    async def numbers() -> AsyncIterator[int]:
        nonlocal closed
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            closed = True

    generator = numbers()

    async def use() -> int:
        return await anext(generator)

    async with closing_island() as island:
        assert await island.run(use) == 1

    assert closed


async def test_calls_under_way_are_told_that_the_island_was_closed() -> None:
    waiting = Waiting()
    errors: list[IslandClosed] = []

    async def ask() -> None:
        try:
            await island.run(waiting)
        except IslandClosed as error:
            errors.append(error)

    async with anyio.create_task_group() as tasks:
        async with closing_island() as island:
            tasks.start_soon(ask)
            await waiting.begun.wait()

        assert waiting.ended

    assert "was closed" in str(errors[0])


async def test_what_refuses_to_end_is_named_and_left_behind(caplog: pytest.LogCaptureFixture) -> None:
    begun = Reply[None]()

    async def refuse() -> None:
        begun.set(None)
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                continue

    async def start() -> None:
        asyncio.current_task().kept = asyncio.ensure_future(refuse())  # type: ignore[union-attr]

    with anyio.fail_after(30):
        async with impatient_island() as island:
            await island.run(start)
            await begun.wait()

    gc.collect()  # asyncio complains about tasks that are destroyed while they are pending
    (record,) = caplog.records
    assert record.event == "island_abandoned"  # type: ignore[attr-defined]
    assert "refuse" in record.message
    assert not its_threads()


async def test_whoever_waits_for_what_refuses_to_end_is_told(caplog: pytest.LogCaptureFixture) -> None:
    begun = Reply[None]()
    errors: list[IslandClosed] = []

    async def refuse() -> None:
        begun.set(None)
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                continue

    async def ask() -> None:
        try:
            await island.run(refuse)
        except IslandClosed as error:
            errors.append(error)

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks, impatient_island() as island:
            tasks.start_soon(ask)
            await begun.wait()

    assert "was closed" in str(errors[0])


async def test_a_call_that_comes_in_the_very_moment_of_the_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async with closing_island() as island:
        pass

    assert island._thread is not None
    monkeypatch.setattr(island._thread, "_must_take_calls", lambda: None)  # it looked just before the end
    with anyio.fail_after(30), pytest.raises(IslandClosed):
        await island.run(asyncio.sleep, 0)


async def test_a_call_that_was_sent_before_the_end_and_arrives_after_it_is_not_begun() -> None:
    blocked, released, waiting = Reply[None](), threading.Event(), Waiting()
    errors: list[IslandClosed] = []

    def block() -> None:
        blocked.set(None)
        assert released.wait(50)

    async def ask() -> None:
        try:
            await island.run(waiting)
        except IslandClosed as error:
            errors.append(error)

    async with closing_island() as island, anyio.create_task_group() as tasks:
        island.post(block)
        await blocked.wait()
        tasks.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        assert island._thread is not None
        island._thread._closed = "was closed"
        released.set()

    assert not waiting.ended
    assert errors


async def test_a_blocked_loop_is_abandoned_and_it_is_said_where_it_is_blocked(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rustmq_sdk._asyncio_island.loop_thread.THREAD_GRACE", 0.05)
    begun, released = Reply[None](), threading.Event()
    errors: list[IslandClosed] = []

    def block_here() -> None:
        begun.set(None)
        assert released.wait(50)

    async def ask() -> None:
        try:
            await island.run(asyncio.sleep, 0)
        except IslandClosed as error:
            errors.append(error)

    async with anyio.create_task_group() as tasks:
        with anyio.fail_after(30):
            async with impatient_island() as island:
                island.post(block_here)
                await begun.wait()
                tasks.start_soon(ask)
                await anyio.wait_all_tasks_blocked()

    assert "block_here" in caplog.text
    assert "block_here" in str(errors[0])
    with pytest.raises(IslandClosed, match="abandoned"):
        await island.run(asyncio.sleep, 0)

    (thread,) = its_threads()
    released.set()
    thread.join(10)
    assert not thread.is_alive(), "it ends as soon as it can"


async def test_a_name_server_that_does_not_answer_holds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, released = Reply[None](), threading.Event()

    def hang(*arguments: Any, **keywords: Any) -> list[Any]:
        begun.set(None)
        assert released.wait(50)
        return []

    async def look_up() -> None:
        await asyncio.get_running_loop().getaddrinfo("kafka.example", 9092)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    with anyio.fail_after(30):
        async with closing_island() as island, anyio.create_task_group() as tasks:
            tasks.start_soon(island.run, look_up)
            await begun.wait()
            tasks.cancel_scope.cancel()

    (thread,) = [thread for thread in threading.enumerate() if thread.name == "rustmq-island-call"]
    assert thread.daemon
    released.set()
    thread.join(10)


async def test_blocking_calls_over_there_answer_and_fail() -> None:
    async def blocking() -> int:
        loop = asyncio.get_running_loop()
        with pytest.raises(ValueError, match="no number"):
            await loop.run_in_executor(None, int, "no number")

        return await asyncio.to_thread(int, "7")

    async with closing_island() as island:
        assert await island.run(blocking) == 7


async def test_closing_goes_on_when_it_is_cancelled() -> None:
    waiting = Waiting()
    with anyio.CancelScope() as scope:
        async with closing_island() as island:
            await island.run(started, waiting)
            scope.cancel()

    assert waiting.ended
    assert not its_threads()


async def started(waiting: Waiting) -> None:
    asyncio.current_task().kept = asyncio.ensure_future(waiting())  # type: ignore[union-attr]
    await asyncio.sleep(0)


async def test_closing_goes_on_when_it_is_cancelled_natively(anyio_backend_name: str) -> None:
    if anyio_backend_name != "asyncio":
        pytest.skip("about asyncio alone")

    async def live() -> None:
        async with closing_island() as island:
            await island.run(asyncio.sleep, 0)
            asyncio.current_task().cancel()  # type: ignore[union-attr]

    task = asyncio.ensure_future(live())
    with pytest.raises(asyncio.CancelledError):
        await task

    assert not its_threads()


def stop_loop() -> None:
    asyncio.get_running_loop().stop()


def leave() -> None:
    sys.exit(3)


@pytest.mark.parametrize(("die", "why"), [(stop_loop, "stopped before"), (leave, "SystemExit")])
async def test_when_its_loop_dies_all_who_wait_and_all_who_come_are_told(
    die: Any, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    waiting = Waiting()
    errors: list[IslandClosed] = []

    async def ask() -> None:
        try:
            await island.run(waiting)
        except IslandClosed as error:
            errors.append(error)

    async with closing_island() as island:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await waiting.begun.wait()
            island.post(die)

        with pytest.raises(IslandClosed, match=why) as raised:
            await island.run(asyncio.sleep, 0)

        with pytest.raises(IslandClosed, match="open another client"):
            island.post(print)

    assert raised.value.__cause__ is not None
    assert why in str(errors[0])
    assert waiting.ended
    assert not its_threads()
    assert [record.event for record in caplog.records] == ["island_died"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_callers_loop_that_died_does_not_harm_the_island(backend: str) -> None:
    island = impatient_island()
    released = asyncio.Event()

    async def refuse() -> None:
        while not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                continue

    async def leave_it() -> None:
        await island.__aenter__()
        with anyio.move_on_after(0.01):
            await island.run(refuse)

    async def ask_again() -> str:
        island.post(released.set)  # what was abandoned ends now, and its caller's loop is no more
        await island.run(asyncio.sleep, 0)
        return "answered"

    anyio.run(leave_it, backend=backend)
    assert anyio.run(ask_again, backend=backend) == "answered"
    (thread,) = its_threads()
    assert island._thread is not None
    island._thread._mailbox.post(island._thread._leave.set)
    thread.join(10)
    assert not thread.is_alive()


PROGRAM = """
import anyio, asyncio, os, sys
from rustmq_sdk._asyncio_island import Island
from rustmq_sdk.errors import IslandClosed

async def tick():
    while True:
        await asyncio.sleep(0.001)

async def main():
    island = Island("under test", thread=True)
    await island.__aenter__()
    {body}

anyio.run(main, backend="{backend}")
"""


def run_program(body: str, backend: str) -> str:
    program = PROGRAM.format(body=body.strip().replace("\n", "\n    "), backend=backend)
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, check=False, timeout=30, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_island_that_was_not_closed_does_not_keep_the_process(backend: str) -> None:
    body = """
with anyio.move_on_after(0.01):
    await island.run(tick)
island.post(lambda: asyncio.ensure_future(tick()))
print("done")
"""
    assert run_program(body, backend) == "done"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_forked_process_is_refused_and_the_parents_island_goes_on(backend: str) -> None:
    body = """
await island.run(asyncio.sleep, 0)
child = os.fork()
if child == 0:
    code = 1
    for use in (lambda: island.post(print), lambda: island.run(asyncio.sleep, 0).send(None)):
        try:
            use()
        except IslandClosed as error:
            code = 0 if "forked" in str(error) else 2
    try:
        island.__aexit__().send(None)
    except StopIteration:
        pass
    else:
        code = 3
    os._exit(code)

print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
await island.run(asyncio.sleep, 0)
await island.__aexit__()
"""
    assert run_program(body, backend) == "0"


def test_importing_the_package_imports_no_island() -> None:
    program = "import sys, rustmq_sdk; print('rustmq_sdk._asyncio_island' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], check=True, timeout=30, capture_output=True, text=True)
    assert done.stdout.strip() == "False"
