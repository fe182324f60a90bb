"""What it takes to wait on one loop for a coroutine of another."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar, cast

import anyio

from rustmq_sdk._log import log
from rustmq_sdk._threads import Reply
from rustmq_sdk.errors import StrayCancellation

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """How a call ended: with a value, or with an error."""

    value: T | None = None
    error: BaseException | None = None

    def unwrap(self) -> T:
        """The value, or raises the error, with the traceback it came with."""
        if self.error is None:
            return cast(T, self.value)

        try:
            raise self.error
        finally:
            del self  # the traceback holds this frame: do not let the frame hold the traceback


class Outlasted(NamedTuple, Generic[T]):
    """What came of a wait behind a shield."""

    answer: T | None
    cancelled: BaseException | None


async def result_of(reply: Reply[Outcome[T]], name: str, *, cancel: Callable[[], None], patience: float) -> T:
    """Waits for a call on another loop, which outlives neither this wait nor, by more than ``patience``, its caller.

    Args:
        reply: is set when the call has ended, also after ``cancel``.
        name: of the call, for the log.
        cancel: has the call cancelled over there, soon.
        patience: seconds that a cancelled call may take to end. Then it is abandoned, which is logged.
    """
    try:
        outcome = await reply.wait()
    except GeneratorExit:  # the loop is gone, and there is nothing to wait with
        cancel()
        raise
    except BaseException:
        cancel()
        _report_cancelled(name, (await outlast(reply, patience)).answer, patience)
        raise

    try:
        return outcome.unwrap()
    finally:
        del outcome, reply, cancel  # as in unwrap()


async def outlast(reply: Reply[T], seconds: float) -> Outlasted[T]:
    """Waits behind a shield, ``seconds`` at most.

    Returns the answer, or None if it took longer; and the last cancellation that came meanwhile, which the caller has
    to raise. A shield does not hold off what cancels an asyncio task directly.
    """
    value: T | None = None
    native: BaseException | None = None
    with anyio.CancelScope(shield=True, deadline=anyio.current_time() + seconds) as scope:
        while value is None:
            try:
                value = await reply.wait()
            except anyio.get_cancelled_exc_class() as error:
                if scope.cancel_called:
                    raise

                native = error

    return Outlasted(value, native)


def is_stray(error: BaseException) -> bool:
    """Whether this is asyncio's cancellation and nobody has cancelled the running task."""
    if not isinstance(error, asyncio.CancelledError):
        return False

    try:
        task = asyncio.current_task()
    except RuntimeError:  # this loop is not asyncio's at all
        return True

    return task is not None and not task.cancelling()


def stray(name: str, error: BaseException) -> StrayCancellation:
    """The error that such a cancellation becomes."""
    said = StrayCancellation(f"{name}: something that it awaited was cancelled, and not by its caller")
    said.__cause__ = error
    return said


def name_of(function: Callable[..., Any]) -> str:
    """What a call is named in logs and errors."""
    function = getattr(function, "func", function)
    return str(getattr(function, "__qualname__", function))


def _report_cancelled(name: str, outcome: Outcome[Any] | None, patience: float) -> None:
    if outcome is None:
        text = "%s was cancelled and has not ended within %.1f s: it is abandoned, and may still have an effect"
        log(logging.WARNING, "call_abandoned", text, name, patience)
    elif isinstance(outcome.error, Exception):
        text = "%s failed while it was being cancelled"
        log(logging.WARNING, "call_abandoned", text, name, exc_info=outcome.error)
