"""An asyncio loop in a daemon thread: its calls, and its end."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import Any, Generic, TypeVar

from rustmq_sdk._asyncio_island.crossing import Outcome, name_of, outlast, result_of, stray
from rustmq_sdk._asyncio_island.executor import DaemonExecutor
from rustmq_sdk._log import log
from rustmq_sdk._threads import Mailbox, Reply
from rustmq_sdk.errors import IslandClosed

T = TypeVar("T")

THREAD_GRACE = 1.0
"""Seconds for the thread itself to end when everything on its loop had its time."""


class LoopThread:
    """The loop is made by, and its calls may come from, any thread; it is closed on the loop that made it.

    Args:
        name: of the thread, for logs and errors.
        patience: seconds that cancelled coroutines may take to end: those whose caller was cancelled, and all at the
            end.

    Raises:
        OSError: there are no file descriptors left for a loop.
        RuntimeError: a thread cannot be started.
    """

    def __init__(self, name: str, patience: float) -> None:
        self._name = name
        self._patience = patience
        self._process = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(DaemonExecutor())
        self._mailbox = Mailbox(_Clean(self._loop))
        self._calls: set[_Call[Any]] = set()
        self._closed: str | None = None
        self._died: BaseException | None = None
        self._leave = asyncio.Event()
        self._gone: Reply[bool] = Reply()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        try:
            self._thread.start()
        except BaseException:
            self._loop.close()
            raise

    async def run(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Awaits ``function(*args)`` over there; see :meth:`Island.run`."""
        self._must_take_calls()
        if threading.get_ident() == self._thread.ident:
            return await function(*args)

        call = _Call(partial(function, *args))
        # Added before the look at the flag, while the end sets the flag before it looks who is there: whichever comes
        # second, a call that nobody begins is told so.
        self._calls.add(call)
        if self._closed is None:
            self._mailbox.post(partial(self._begin, call))
        else:
            self._refuse(call)

        cancel = partial(self._mailbox.post, call.cancel)
        try:
            return await result_of(call.reply, call.name, cancel=cancel, patience=self._patience)
        finally:
            del call, cancel  # an error's traceback holds this frame: do not let the frame hold the error

    def post(self, call: Callable[[], object]) -> None:
        """Has ``call`` made over there; see :meth:`Island.post`."""
        self._must_take_calls()
        # By call_soon, as the first steps of tasks and the wake-ups of those that wait are: so everything that crosses
        # takes the same one turn of the loop, and is done in the order in which it was sent.
        self._mailbox.post(partial(self._loop.call_soon, call))

    async def end(self) -> None:
        """Cancels what still runs and ends the thread, within ``patience`` and a second."""
        if os.getpid() != self._process:
            return  # it is the parent's, and its thread is not in this process

        self._mailbox.post(self._leave.set)
        waited = await outlast(self._gone, self._patience + THREAD_GRACE)
        if waited.answer:
            self._thread.join(THREAD_GRACE)
        else:
            self._abandon()

        if waited.cancelled is not None:
            raise waited.cancelled

    def _abandon(self) -> None:
        where = _where(self._thread)
        self._closed = f"is blocked, and was abandoned:\n{where}"
        log(logging.WARNING, "island_abandoned", "the loop of %r does not end, it is blocked:\n%s", self._name, where)
        self._refuse_all()

    def _must_take_calls(self) -> None:
        if os.getpid() != self._process:
            raise IslandClosed(
                f"{self._name!r} belongs to process {self._process}, from which this one was forked: threads do not "
                "come along. Open a client of its own in each process, after the fork"
            )

        if self._closed is not None:
            raise self._refusal()

    def _refusal(self) -> IslandClosed:
        refusal = IslandClosed(f"there are no further calls, the loop of {self._name!r} {self._closed}")
        refusal.__cause__ = self._died
        return refusal

    def _refuse(self, call: _Call[Any]) -> None:
        self._tell(call, Outcome(error=self._refusal()))

    def _refuse_all(self) -> None:
        for call in list(self._calls):
            self._refuse(call)

    def _tell(self, call: _Call[Any], outcome: Outcome[Any]) -> None:
        try:
            self._calls.remove(call)
        except KeyError:
            return  # it was told already, when the other thread had lost patience with this one

        call.reply.set(outcome)

    # On its own thread

    def _work(self) -> None:
        try:
            self._loop.run_until_complete(self._live())
        except BaseException as error:
            # Somebody has stopped the loop, or exited in a callback. Those that wait are told, and so is the log.
            self._died = error
            log(logging.WARNING, "island_died", "the loop of %r has died: %r", self._name, error, exc_info=error)

        self._closed = "was closed" if self._died is None else f"has died of {self._died!r}: open another client"
        try:
            self._loop.run_until_complete(self._end_tasks())
        except BaseException as error:
            text = "the loop of %r has died while it was closed"
            log(logging.WARNING, "island_died", text, self._name, exc_info=error)
        finally:
            self._loop.close()
            self._refuse_all()
            self._gone.set(True)

    async def _live(self) -> None:
        # Answers that come back from elsewhere use it too. By another mailbox a seek would overtake what it follows.
        self._mailbox.install()
        await self._leave.wait()

    def _begin(self, call: _Call[Any]) -> None:
        if self._closed is None:
            call.begin(self._loop).add_done_callback(partial(self._ended, call))
        else:
            self._refuse(call)

    def _ended(self, call: _Call[Any], task: asyncio.Task[Outcome[Any]]) -> None:
        outcome = Outcome(error=asyncio.CancelledError()) if task.cancelled() else task.result()
        if isinstance(outcome.error, asyncio.CancelledError) and not call.cancelled:
            outcome = Outcome(error=stray(call.name, outcome.error) if self._closed is None else self._refusal())

        self._tell(call, outcome)

    async def _end_tasks(self) -> None:
        deadline = self._loop.time() + self._patience
        left = await _cancelled(deadline)
        generators = self._loop.create_task(self._loop.shutdown_asyncgens())
        # They have a turn of the loop even if all the time is gone.
        left |= (await asyncio.wait([generators], timeout=max(0.0, deadline - self._loop.time())))[1]
        if left:
            text = "%r was closed while these refused to end: %s"
            log(logging.WARNING, "island_abandoned", text, self._name, _names(left))
            self._loop.set_exception_handler(partial(_pass_over, left))


class _Call(Generic[T]):
    """One coroutine on the loop, and who waits for it elsewhere."""

    def __init__(self, function: Callable[[], Awaitable[T]]) -> None:
        self.name = name_of(function)
        self.reply: Reply[Outcome[T]] = Reply()
        self.cancelled = False
        self._function = function
        self._task: asyncio.Task[Outcome[T]] | None = None

    def begin(self, loop: asyncio.AbstractEventLoop) -> asyncio.Task[Outcome[T]]:
        self._task = loop.create_task(self._made(), name=f"rustmq island {self.name}")
        return self._task

    def cancel(self) -> None:
        self.cancelled = True
        if self._task is not None:
            self._task.cancel()

    async def _made(self) -> Outcome[T]:
        try:
            return Outcome(await self._function())
        except BaseException as error:  # an exit too: it is the caller's, and must not end the loop
            return Outcome(error=error)
        finally:
            del self  # the error's traceback holds this frame: do not let the frame hold the error


class _Clean:
    """What a :class:`Mailbox` knows of the loop: its callbacks see an empty context.

    asyncio would give them that of whoever happened to wake the loop. Clients keep tasks for long, which would go on in
    some request's context; and in a context that says "trio" anyio takes this loop for trio's.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._context = contextvars.Context()

    def call_soon_threadsafe(self, callback: Callable[[], None]) -> None:
        self._loop.call_soon_threadsafe(callback, context=self._context)


async def _cancelled(deadline: float) -> set[asyncio.Task[Any]]:
    """Cancels all other tasks of the loop, each once, waits for them, and returns those that have not ended."""
    loop, others = asyncio.get_running_loop(), {asyncio.current_task()}
    cancelled: set[asyncio.Task[Any]] = set()
    while tasks := asyncio.all_tasks() - others:
        for task in tasks - cancelled:
            task.cancel()

        cancelled |= tasks
        if loop.time() >= deadline:
            break

        # What ends may have started others, to clean up.
        await asyncio.wait(tasks, timeout=deadline - loop.time(), return_when=asyncio.FIRST_COMPLETED)

    return tasks


def _pass_over(tasks: Collection[asyncio.Task[Any]], loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Reports no task as destroyed while pending that was named as abandoned already."""
    if context.get("task") not in tasks:
        loop.default_exception_handler(context)


def _names(tasks: Collection[asyncio.Task[Any]]) -> str:
    return ", ".join(f"{task.get_name()} ({task.get_coro()!r})" for task in tasks)


def _where(thread: threading.Thread) -> str:
    frame = sys._current_frames().get(thread.ident or 0)
    return "".join(traceback.format_stack(frame, limit=3)) if frame is not None else "nowhere to be seen"
