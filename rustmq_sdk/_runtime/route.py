"""From what the user gave as a dead-letter route to one awaitable call."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from rustmq_sdk._runtime.dead_letters import Put
from rustmq_sdk.errors import ConfigurationError
from rustmq_sdk.values import DeadLetter


def route_of(route: Any) -> Put | None:
    """The ``put`` of a ``DeadLetterQueue``, or an async callable as it is; None for no route."""
    if route is None:
        return None

    put = getattr(route, "put", None) or route
    if not callable(put):
        raise ConfigurationError(
            "expected an async callable or a DeadLetterQueue",
            field="dead_letters",
            value=route,
            fix="A callable is called with a sequence of DeadLetter, and awaited if it is async",
        )

    async def call(letters: Sequence[DeadLetter]) -> None:
        result = put(letters)
        # A plain function is fine where it does not block: a list in a test, a logger.
        if inspect.isawaitable(result):
            await result

    return call
