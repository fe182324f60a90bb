"""Daemon threads for blocking calls, awaited from asyncio and from trio alike.

The worker threads of anyio and asyncio are not daemons: a call that hangs in one of them keeps the process from ending.
These are, so an abandoned call costs a thread and never an exit. Nothing here reads a clock of its own: whoever wants a
deadline puts ``anyio.move_on_after`` around the await, and the call is abandoned.

A result travels back by ``call_soon_threadsafe`` or ``run_sync_soon``, which never block the thread; results that come
together share one wake-up of the loop. A loop that has died meanwhile is nobody's error: its results are dropped.
"""

from __future__ import annotations

import contextvars
import os
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, ClassVar, Generic, ParamSpec, TypeVar, cast

import anyio
from anyio.lowlevel import RunVar, current_token

P = ParamSpec("P")
T = TypeVar("T")

IDLE_SECONDS = 10.0
"""How long a pooled thread waits for its next call before it ends; trio's own thread cache uses the same."""


class Mailbox:
    """Brings what threads have finished to one event loop."""

    def __init__(self, native_token: Any) -> None:
        soon = getattr(native_token, "run_sync_soon", None)
        self._call_soon: Callable[[Callable[[], None]], object] = soon or native_token.call_soon_threadsafe
        self._ready: deque[Callable[[], object]] = deque()
        self._scheduled = False

    @classmethod
    def current(cls) -> Mailbox:
        """The mailbox of the running loop."""
        try:
            return _mailbox.get()
        except LookupError:
            mailbox = cls(current_token().native_token)
            mailbox.install()
            return mailbox

    def install(self) -> None:
        """Makes this the mailbox of the running loop, before anybody has asked for it: two would keep no order."""
        _mailbox.set(self)

    def post(self, call: Callable[[], object]) -> None:
        """Has ``call`` made by the loop, soon. From any thread."""
        # The append comes before the look at the flag, and the loop clears the flag before it drains: whoever sees it
        # set left its call where the coming drain finds it. Two threads that see it clear wake the loop twice.
        self._ready.append(call)
        if self._scheduled:
            return

        self._scheduled = True
        try:
            self._call_soon(self._drain)
        except RuntimeError:  # the loop is closed (trio's RunFinishedError is one): nobody waits any more
            self._ready.clear()

    def _drain(self) -> None:
        self._scheduled = False
        while self._ready:
            self._ready.popleft()()


_mailbox: RunVar[Mailbox] = RunVar("rustmq_sdk_mailbox")


class Reply(Generic[T]):
    """A result on its way from a thread to the task that created this object."""

    __slots__ = ("_error", "_event", "_mailbox", "_value")

    def __init__(self) -> None:
        self._mailbox = Mailbox.current()
        self._event = anyio.Event()
        self._value: T | None = None
        self._error: BaseException | None = None

    def set(self, value: T) -> None:
        """The result is there. From any thread, once."""
        self._value = value
        self._mailbox.post(self._event.set)

    def fail(self, error: BaseException) -> None:
        """There will be no result. From any thread, once."""
        self._error = error
        self._mailbox.post(self._event.set)

    async def wait(self) -> T:
        """The result, or its error. A cancelled wait abandons it: nobody hears of it any more, an error included."""
        await self._event.wait()
        error = self._error
        if error is None:
            return cast(T, self._value)

        try:
            raise error
        finally:
            del error, self  # the traceback holds this frame: do not let the frame hold the traceback


class ThreadClosed(RuntimeError):
    """The thread takes no more calls."""


class ThreadForked(ThreadClosed):
    """The thread is another process's: a fork takes no threads along, and a call would wait for ever."""


class DaemonThread:
    """One daemon thread that makes blocking calls one after another, in the order they came.

    It starts with the first call and ends after :meth:`close`, when everything asked for before is done.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._process: int | None = None
        self._closed = False

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Makes the call on the thread and returns what it returns, or raises what it raises.

        Cancelling the wait abandons the result; the call is made all the same.

        Raises:
            ThreadClosed: after :meth:`close`.
            ThreadForked: in a child that was forked since the first call.
        """
        reply: Reply[T] = Reply()
        self.submit(partial(_answer, reply, partial(function, *args, **kwargs)))
        return await reply.wait()

    def submit(self, call: Callable[[], None]) -> None:
        """Has the call made without waiting for it. From any thread.

        What it raises goes to ``threading.excepthook``, and the thread goes on.
        """
        # Before the lock, which another thread of the parent may have held when it forked.
        if self._process not in (None, os.getpid()):
            raise ThreadForked(f"the thread {self._name!r} belongs to process {self._process}")

        with self._lock:
            if self._closed:
                raise ThreadClosed(f"the thread {self._name!r} is closed: make calls before close()")

            self._calls.put(call)
            if self._thread is None:
                self._process = os.getpid()
                self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Ends the thread after the calls it was given. Does not wait for them; more than once is fine."""
        with self._lock:
            self._closed = True
            self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                call()
            except BaseException as error:
                report = threading.ExceptHookArgs((type(error), error, error.__traceback__, threading.current_thread()))
                threading.excepthook(report)

            del call  # or what it holds lives until the next one comes


async def run_in_daemon_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Makes a blocking call on a pooled daemon thread, with a copy of the caller's context variables.

    The pool has as many threads as calls were running at once, and forgets those that stay idle. Cancelling the wait
    abandons the call: a thread cannot be cancelled, it finishes on its own and its result is dropped.
    """
    reply: Reply[T] = Reply()
    in_context = partial(contextvars.copy_context().run, partial(function, *args, **kwargs))
    _PooledThread.available().calls.put(partial(_outcome, reply, in_context))
    return await reply.wait()


class _PooledThread:
    idle: ClassVar[deque[_PooledThread]] = deque()

    def __init__(self) -> None:
        self.calls: SimpleQueue[Callable[[], Callable[[], None]]] = SimpleQueue()
        threading.Thread(target=self._work, name="rustmq-call", daemon=True).start()

    @classmethod
    def available(cls) -> _PooledThread:
        # The one that was idle for the shortest time, so that the others can reach their time-out.
        try:
            return cls.idle.pop()
        except IndexError:
            return cls()

    def _work(self) -> None:
        while (call := self._next()) is not None:
            tell = call()
            # Idle again before the result is told: whoever calls next because of it finds this thread.
            self.idle.append(self)
            tell()
            del call, tell  # or what they hold lives until the next call

    @classmethod
    def forget(cls) -> None:
        """In a forked child: it has none of these threads, and a call to one would wait for ever."""
        cls.idle.clear()

    def _next(self) -> Callable[[], Callable[[], None]] | None:
        try:
            return self.calls.get(timeout=IDLE_SECONDS)
        except Empty:
            pass

        try:
            self.idle.remove(self)
        except ValueError:  # taken in this very moment: its call is on the way
            return self.calls.get()

        return None


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(after_in_child=_PooledThread.forget)


def _outcome(reply: Reply[T], call: Callable[[], T]) -> Callable[[], None]:
    """Makes the call and returns what tells how it ended."""
    try:
        value = call()
    except BaseException as error:
        return partial(reply.fail, error)

    return partial(reply.set, value)


def _answer(reply: Reply[T], call: Callable[[], T]) -> None:
    _outcome(reply, call)()
