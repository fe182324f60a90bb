"""Where an asyncio-only client lives: on the loop it is used from, or on one in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from anyio.lowlevel import current_token

from rustmq_sdk._asyncio_island.crossing import is_stray, name_of, stray
from rustmq_sdk._asyncio_island.loop_thread import LoopThread
from rustmq_sdk._threads import Mailbox
from rustmq_sdk.errors import IslandClosed

T = TypeVar("T")

PATIENCE = 2.0
"""Seconds that a cancelled coroutine may take to end. Cleaning up takes milliseconds; and a consumer that leaves while
the island's loop is blocked waits for it in vain, so this has to be short beside a ``close_timeout``."""


class Island:
    """An asyncio loop for clients that know no other: the caller's own, or one in a daemon thread. Entered once.

    Under trio it is always a thread. Under asyncio it is the caller's loop, where a call costs what an await costs, or
    with ``thread=True`` a thread as well: then a handler that blocks the caller's loop does not keep the client from
    its heartbeats.

    ::

        async with Island("rustmq-kafka") as island:
            client = await island.run(connected)          # an async function: clients want a loop to be made on
            await island.run(client.send, topic, payload)

    Args:
        name: of the thread, for logs and errors.
        thread: under asyncio too.
        patience: seconds that a coroutine may take to end when it is cancelled.
    """

    def __init__(self, name: str, *, thread: bool = False, patience: float = PATIENCE) -> None:
        self._name = name
        self._wants_thread = thread
        self._patience = patience
        self._thread: LoopThread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._mailbox: Mailbox | None = None

    @property
    def is_elsewhere(self) -> bool:
        """Whether it is a thread. Known once it was entered."""
        return self._thread is not None

    @property
    def patience(self) -> float:
        """Seconds that a coroutine may take to end when it is cancelled."""
        return self._patience

    async def __aenter__(self) -> Island:
        """Starts the thread, if there is one.

        Raises:
            IslandClosed: it was entered before.
        """
        if self._thread is not None or self._mailbox is not None:
            raise IslandClosed(f"the island {self._name!r} is entered once. Make another one")

        loop = current_token().native_token
        if self._wants_thread or not isinstance(loop, asyncio.AbstractEventLoop):
            self._thread = LoopThread(self._name, self._patience)
        else:
            self._loop, self._mailbox = loop, Mailbox.current()

        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Cancels what runs on the thread and ends it; more than once is fine.

        Takes milliseconds, also when it is cancelled, or up to ``patience`` and a second if something there refuses to
        end; what refuses is named in the log and left behind. On the caller's own loop nothing is to be ended.
        """
        self._loop = None
        if self._thread is not None:
            await self._thread.end()

    async def run(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Awaits ``function(*args)`` on the island and returns its result. From any task of the loop that entered it;
        of a thread also from other loops.

        Cancelling it cancels the coroutine over there, and waits until that has ended: no call outlives its caller,
        except, after ``patience`` seconds, one that refuses. Errors are raised as they are, with traceback and cause.
        Context variables do not cross. Calls and :meth:`post` begin in the order in which they were made.

        Raises:
            StrayCancellation: the coroutine was cancelled, and not by the caller of this.
            IslandClosed: the island was not entered or was left, its loop has died, or this is a forked process.
        """
        if self._thread is not None:
            return await self._thread.run(function, *args)

        self._must_be_here()
        try:
            return await function(*args)
        except asyncio.CancelledError as error:
            if not is_stray(error):
                raise

            raise stray(name_of(function), error) from error

    def post(self, call: Callable[[], object]) -> None:
        """Has ``call`` made by the island's loop, soon. From any thread.

        What it raises goes to the exception handler of that loop, which logs it.

        Raises:
            IslandClosed: as :meth:`run`.
        """
        if self._thread is not None:
            self._thread.post(call)
            return

        if self._loop is None or self._mailbox is None:
            raise self._closed()

        self._mailbox.post(partial(self._loop.call_soon, call))

    def _must_be_here(self) -> None:
        if self._loop is None:
            raise self._closed()

        if asyncio.get_running_loop() is not self._loop:
            raise IslandClosed(f"the island {self._name!r} is another loop. Use thread=True to call it from any")

    def _closed(self) -> IslandClosed:
        return IslandClosed(f"the island {self._name!r} is not entered. Use it inside `async with`")
