"""Errors that leave a task group as themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

import anyio


class Body:
    """The part of a task group's block whose errors are to be raised as themselves, when the group has ended."""

    def __init__(self) -> None:
        self.failure: BaseException | None = None

    def __enter__(self) -> None:
        """Nothing."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        # What ends the group's tasks as well goes through it: a cancellation, and the end of a generator.
        if error is None or isinstance(error, (anyio.get_cancelled_exc_class(), GeneratorExit)):
            return False

        self.failure = error
        return True


@contextmanager
def raised_as_itself() -> Iterator[Body]:
    """Raises what a block of code inside a task group has raised. The group would wrap it in an ``ExceptionGroup``.

    ::

        with raised_as_itself() as body:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(beside)
                with body:
                    yield ...                    # the code of somebody who knows nothing of the group

                tasks.cancel_scope.cancel()      # also reached when that code has failed; not when it was cancelled
    """
    body = Body()
    yield body
    if body.failure is not None:
        raise body.failure
