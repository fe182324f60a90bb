"""Where the island's loop makes its blocking calls: looking up names, for the most part."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class DaemonExecutor(ThreadPoolExecutor):
    """A daemon thread for each call.

    The threads of asyncio's own executor are no daemons, and it is waited for when a loop closes and when the process
    ends: a name server that does not answer would hold both. (It has to be a ``ThreadPoolExecutor``, or asyncio refuses
    it; none of that one's threads is ever started.)
    """

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Makes the call, on a thread of its own."""
        future: Future[T] = Future()
        call = partial(fn, *args, **kwargs)
        threading.Thread(target=_make, args=(future, call), name="rustmq-island-call", daemon=True).start()
        return future


def _make(future: Future[Any], call: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return

    try:
        value = call()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(value)
