"""The way back: calls from the island that have to be made on the user's loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Generic, TypeVar

import anyio

from rustmq_sdk._asyncio_island.crossing import Outcome, is_stray, name_of, result_of, stray
from rustmq_sdk._threads import Mailbox, Reply
from rustmq_sdk.errors import IslandClosed

T = TypeVar("T")


class UserLoop:
    """Takes calls from any loop and makes them on the one it was made on, one after another in the order they came.

    They are made by the task that runs :meth:`serve`, in a task group of the user's: what cancels that cancels them. A
    call must not make another one through the same object, which would wait for itself.

    Args:
        patience: seconds that a call may take to end when it is cancelled.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._mailbox = Mailbox.current()
        self._waiting: deque[_Call[Any]] = deque()
        self._running: _Call[Any] | None = None
        self._news = anyio.Event()
        self._closed = False

    async def call(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Awaits ``function(*args)`` there and returns its result. From any loop.

        Cancelling it cancels the call and waits until that has ended, ``patience`` seconds at most. Errors are raised
        as they are.

        Raises:
            IslandClosed: this was closed, or its task was cancelled, before the call had ended.
            StrayCancellation: the call was cancelled by somebody else.
        """
        call = _Call(partial(function, *args))
        self._mailbox.post(partial(self._arrive, call))
        cancel = partial(self._mailbox.post, partial(self._cancel, call))
        try:
            return await result_of(call.reply, call.name, cancel=cancel, patience=self._patience)
        finally:
            del call, cancel  # an error's traceback holds this frame: do not let the frame hold the error

    async def serve(self) -> None:
        """Makes the calls, until :meth:`close` or until it is cancelled. To be run once, on the loop it was made on."""
        try:
            while not self._closed:
                if self._waiting:
                    await self._make(self._waiting.popleft())
                else:
                    self._news = anyio.Event()
                    await self._news.wait()
        finally:
            self.close()

    def close(self) -> None:
        """Cancels the call that runs and refuses the others; more than once is fine. On the loop it was made on."""
        self._closed = True
        self._news.set()
        if self._running is not None:
            self._running.scope.cancel()

        while self._waiting:
            self._refuse(self._waiting.popleft())

    def _arrive(self, call: _Call[Any]) -> None:
        if self._closed:
            self._refuse(call)
        else:
            self._waiting.append(call)
            self._news.set()

    def _cancel(self, call: _Call[Any]) -> None:
        call.cancelled = True
        if call is self._running:
            call.scope.cancel()
        elif call in self._waiting:
            self._waiting.remove(call)
            self._refuse(call)

    async def _make(self, call: _Call[Any]) -> None:
        try:
            with anyio.CancelScope() as call.scope:
                self._running = call
                call.reply.set(await self._outcome(call))
        finally:
            self._running = None

    async def _outcome(self, call: _Call[Any]) -> Outcome[Any]:
        try:
            return Outcome(await call.function())
        except Exception as error:
            return Outcome(error=error)
        except BaseException as error:
            if is_stray(error):
                return Outcome(error=stray(call.name, error))

            # Cancelled from here or from there, or an exit: that is this process's, and not to be raised over there.
            self._refuse(call)
            raise
        finally:
            del call  # as in call()

    def _refuse(self, call: _Call[Any]) -> None:
        # A caller that has cancelled does not ask for the reason.
        closed = IslandClosed(f"{call.name} was not made, or not to its end: whoever was to be called has gone")
        call.reply.set(Outcome(error=asyncio.CancelledError() if call.cancelled else closed))


class _Call(Generic[T]):
    """One call, and who waits for it elsewhere."""

    def __init__(self, function: Callable[[], Awaitable[T]]) -> None:
        self.name = name_of(function)
        self.function = function
        self.reply: Reply[Outcome[T]] = Reply()
        self.cancelled = False
        self.scope: anyio.CancelScope
