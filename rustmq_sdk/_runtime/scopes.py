"""The cancel scopes of the consumer's tasks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import anyio


class Scopes:
    """The cancel scopes of the consumer's tasks: shielded from whatever cancels the user's code around them.

    Without the shield a cancelled ``async with`` would kill the ack-handler and leave the group before the last commit.
    They are ended by us, in the order of ``shutdown.py``.
    """

    def __init__(self) -> None:
        self._scopes: list[anyio.CancelScope] = []
        self._cancelled = False

    @contextmanager
    def shielded(self, *, at_once: bool = True) -> Iterator[anyio.CancelScope]:
        """One task's scope; ``at_once=False`` leaves it to the task to set its ``shield``."""
        with anyio.CancelScope(shield=at_once) as scope:
            self._scopes.append(scope)
            if self._cancelled:
                scope.cancel()

            yield scope

    def cancel(self) -> None:
        """Ends all tasks, also those that were started and did not run yet."""
        self._cancelled = True
        for scope in self._scopes:
            scope.cancel()


def unwrapped(error: BaseException) -> BaseException:
    """The exception itself where a task group has wrapped a single one."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]

    return error
