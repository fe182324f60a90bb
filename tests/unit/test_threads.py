from __future__ import annotations

import contextvars
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator

import anyio
import pytest

from rustmq_sdk import _threads
from rustmq_sdk._threads import DaemonThread, Mailbox, Reply, ThreadClosed, ThreadForked, run_in_daemon_thread

colour: contextvars.ContextVar[str] = contextvars.ContextVar("colour", default="none")


@pytest.fixture
async def thread() -> AsyncIterator[DaemonThread]:
    thread = DaemonThread("under test")
    yield thread
    thread.close()


class Gate:
    """A call that says when it has begun, and ends when it is told to."""

    def __init__(self) -> None:
        self.begun = Reply[None]()
        self._open = threading.Event()

    def __call__(self) -> str:
        self.begun.set(None)
        assert self._open.wait(10)
        return "through"

    def open(self) -> None:
        self._open.set()


async def test_a_call_is_made_on_one_daemon_thread_and_answers(thread: DaemonThread) -> None:
    first = await thread.run(threading.current_thread)
    assert first.daemon
    assert first.name == "under test"
    assert await thread.run(threading.current_thread) is first
    assert await thread.run(divmod, 7, 2) == (3, 1)
    assert await thread.run(int, "ff", base=16) == 255


async def test_an_exception_of_the_call_is_raised_where_it_is_awaited(thread: DaemonThread) -> None:
    with pytest.raises(ValueError, match="no number"):
        await thread.run(int, "no number")

    assert await thread.run(int, "1") == 1, "the thread goes on"


async def test_an_exit_in_a_call_does_not_end_the_thread(thread: DaemonThread) -> None:
    with pytest.raises(SystemExit):
        await thread.run(sys.exit)

    assert await thread.run(int, "1") == 1


async def test_calls_are_made_one_after_another_in_their_order(thread: DaemonThread) -> None:
    made: list[int] = []
    async with anyio.create_task_group() as tasks:
        gate = Gate()
        tasks.start_soon(thread.run, gate)
        await gate.begun.wait()
        for number in range(20):
            tasks.start_soon(thread.run, made.append, number)
            await anyio.wait_all_tasks_blocked()

        assert not made
        gate.open()

    assert made == list(range(20))


async def test_a_cancelled_wait_abandons_the_result_and_the_call_is_made(thread: DaemonThread) -> None:
    gate = Gate()
    made: list[str] = []

    async def wait() -> None:
        await thread.run(lambda: made.append(gate()))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await gate.begun.wait()
        tasks.cancel_scope.cancel()

    gate.open()
    await thread.run(int)
    assert made == ["through"]


async def test_a_call_that_was_cancelled_before_its_turn_is_made(thread: DaemonThread) -> None:
    gate = Gate()
    made: list[int] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(thread.run, gate)
        tasks.start_soon(thread.run, made.append, 1)
        await gate.begun.wait()
        tasks.cancel_scope.cancel()

    gate.open()
    await thread.run(int)
    assert made == [1]


async def test_what_a_submitted_call_raises_is_reported_and_the_thread_goes_on(
    thread: DaemonThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", reported.append)
    thread.submit(lambda: 1 // 0)  # type: ignore[arg-type]
    await thread.run(int)
    (report,) = reported
    assert report.exc_type is ZeroDivisionError
    assert report.thread is not None
    assert report.thread.name == "under test"


async def test_a_closed_thread_finishes_what_it_was_given_and_takes_nothing_more(thread: DaemonThread) -> None:
    async with anyio.create_task_group() as tasks:
        gate = Gate()
        tasks.start_soon(thread.run, gate)
        await gate.begun.wait()
        made: list[int] = []
        thread.submit(lambda: made.append(1))
        thread.close()
        thread.close()
        with pytest.raises(ThreadClosed, match="under test"):
            await thread.run(int)

        gate.open()

    assert thread._thread is not None
    thread._thread.join(10)
    assert not thread._thread.is_alive()
    assert made == [1]


async def test_results_that_come_together_share_one_wake_up() -> None:
    woken = 0

    class Loop:
        def call_soon_threadsafe(self, call: object) -> None:
            nonlocal woken
            woken += 1

    mailbox = Mailbox(Loop())
    delivered: list[int] = []
    for number in range(5):
        mailbox.post(lambda number=number: delivered.append(number))  # type: ignore[misc]

    assert woken == 1
    mailbox._drain()
    assert delivered == list(range(5))
    mailbox.post(lambda: None)
    assert woken == 2, "after a delivery the loop has to be woken again"


async def test_no_result_is_lost_among_many_threads() -> None:
    threads = [DaemonThread(f"one of many {number}") for number in range(4)]
    answers: list[int] = []

    async def ask(thread: DaemonThread, number: int) -> None:
        answers.extend([await thread.run(int, f"{round_}{number}") for round_ in range(100)])

    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(ask, threads[number % 4], number)

    for thread in threads:
        thread.close()

    assert len(answers) == 2000


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_loop_that_died_meanwhile_does_not_harm_the_thread(backend: str) -> None:
    gate = threading.Event()
    thread = DaemonThread("survivor")

    async def leave_it() -> None:
        with anyio.move_on_after(0.01):
            await thread.run(gate.wait, 10)

    async def ask_again() -> int:
        return await thread.run(int, "7")

    anyio.run(leave_it, backend=backend)
    gate.set()
    assert anyio.run(ask_again, backend=backend) == 7
    thread.close()


async def test_a_handler_sees_the_context_variables_of_its_caller() -> None:
    colour.set("red")

    def paint() -> str:
        seen = colour.get()
        colour.set("blue")
        return seen

    assert await run_in_daemon_thread(paint) == "red"
    assert colour.get() == "red", "it works on a copy"
    with pytest.raises(ValueError, match="no number"):
        await run_in_daemon_thread(int, "no number")


async def test_pooled_threads_are_used_again_and_grow_with_concurrency_only() -> None:
    first = await run_in_daemon_thread(threading.current_thread)
    for _ in range(20):
        assert await run_in_daemon_thread(threading.current_thread) is first

    assert first.daemon
    barrier = threading.Barrier(3)
    names: set[int | None] = set()

    async def meet() -> None:
        await run_in_daemon_thread(barrier.wait, 10)
        names.add((await run_in_daemon_thread(threading.current_thread)).ident)

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(meet)

    assert len(names) <= 3


async def test_an_idle_pooled_thread_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_threads, "IDLE_SECONDS", 0.0)
    monkeypatch.setattr(_threads._PooledThread, "idle", type(_threads._PooledThread.idle)())
    worker = await run_in_daemon_thread(threading.current_thread)
    worker.join(10)
    assert not worker.is_alive()
    assert await run_in_daemon_thread(int, "1") == 1


async def test_a_cancelled_handler_is_abandoned() -> None:
    gate = Gate()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run_in_daemon_thread, gate)
        await gate.begun.wait()
        tasks.cancel_scope.cancel()

    gate.open()


@pytest.mark.parametrize(
    "call", ["_threads.run_in_daemon_thread(time.sleep, 60)", "DaemonThread('x').run(time.sleep, 60)"]
)
def test_a_call_that_hangs_does_not_keep_the_process(call: str) -> None:
    program = f"""
import anyio, time
from rustmq_sdk import _threads
from rustmq_sdk._threads import DaemonThread

async def main():
    with anyio.move_on_after(0.01):
        await {call}

anyio.run(main)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)


async def test_a_forked_child_is_told_instead_of_waiting_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    thread = DaemonThread("parents")
    assert await thread.run(int, "7") == 7
    ours = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: ours + 1)
    with pytest.raises(ThreadForked, match=f"'parents' belongs to process {ours}"):
        await thread.run(int, "8")

    monkeypatch.undo()
    thread.close()
