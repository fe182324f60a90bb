"""Stopping on SIGINT and SIGTERM, for programs that own their signals."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol

from rustmq_sdk._log import log
from rustmq_sdk.errors import ConfigurationError, ConsumerStateError


class Stoppable(Protocol):
    """A consumer."""

    def stop(self) -> None: ...


@contextmanager
def stop_on_signals(*consumers: Stoppable) -> Iterator[None]:
    """Inside the block SIGINT and SIGTERM stop the consumers; a second one ends the process at once.

    ``async for`` and ``run()`` end normally at the first signal, so the program leaves its ``async with`` blocks: what
    is in flight is finished, what is settled is committed. The second signal exits with 128 + its number, as a shell
    reports it; messages in flight then come again after a restart.

    Opt-in, since frameworks such as uvicorn own their signals. The handlers found at the beginning are put back at the
    end.

    Raises:
        ConfigurationError: no consumer, or something that cannot be stopped.
        ConsumerStateError: not in the main thread, where Python allows no signal handlers.
    """
    _check(consumers)
    if threading.current_thread() is not threading.main_thread():
        raise ConsumerStateError(
            "signal handlers can only be set in the main thread. Call stop() from wherever your signals arrive"
        )

    seen = False

    def handle(number: int, _frame: FrameType | None) -> None:
        nonlocal seen
        if seen:
            os._exit(128 + number)

        seen = True
        for consumer in consumers:
            consumer.stop()

        log(logging.INFO, "stopping", "%s: stopping; once more to exit at once", signal.Signals(number).name)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _check(consumers: tuple[object, ...]) -> None:
    """Found here, or when the first signal comes and nothing stops."""
    fix = "Write stop_on_signals(consumer), or several of them, inside their `async with` blocks"
    if not consumers:
        raise ConfigurationError("expected at least one consumer", field="consumers", value=(), fix=fix)

    for consumer in consumers:
        if isinstance(consumer, type) or not callable(getattr(consumer, "stop", None)):
            raise ConfigurationError(
                "expected a consumer, which has stop()", field="consumers", value=consumer, fix=fix
            )
