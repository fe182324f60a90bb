"""tenacity's ``wait_*`` strategies, asked for a pause without tenacity's retrying loop around them.

A strategy is a callable that takes tenacity's ``RetryCallState``. That class reads the process's clock when it is made,
so here is one of the same shape that reads none. Nothing of tenacity is imported: whoever gives a strategy did that.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NoReturn

from rustmq_sdk.errors import ConfigurationError, Retry


def pause_by(wait: Callable[[Any], float], attempt: int, error: Exception | None) -> float:
    """Seconds that the strategy waits after attempt ``attempt``.

    Raises:
        ConfigurationError: the strategy raised, or what it answered is not a number of seconds from 0 on.
    """
    try:
        pause = float(wait(FailedAttempt(attempt, error)))
    except Exception as problem:
        raise _refused(wait, f"it failed for attempt {attempt}: {problem!r}") from problem

    if not 0 <= pause < math.inf:
        raise _refused(wait, f"expected a number of seconds from 0 on, got {pause} for attempt {attempt}")

    return pause


def _refused(wait: Callable[[Any], float], problem: str) -> ConfigurationError:
    return ConfigurationError(
        problem,
        field="retry.wait",
        value=wait,
        fix="Give one of tenacity's wait strategies, or a function of its RetryCallState that returns seconds",
    )


class FailedAttempt:
    """In the shape of tenacity's ``RetryCallState`` (9.2), as far as it is known for a message.

    Attributes:
        attempt_number: the attempt that failed; the first is 1.
        outcome: of that attempt. A plain ``nack()`` shows as the ``Retry`` that it is the same as.
        next_action, outcome_timestamp, seconds_since_start: None, not known.
        idle_for, start_time, upcoming_sleep: 0.0, not known.
        fn, args, kwargs, retry_object: there is no function that is called again, and no retrying object.
    """

    next_action: None = None
    outcome_timestamp: None = None
    seconds_since_start: None = None
    idle_for = 0.0
    start_time = 0.0
    upcoming_sleep = 0.0
    fn: None = None
    args: tuple[()] = ()
    retry_object: None = None

    def __init__(self, attempt: int, error: Exception | None) -> None:
        self.attempt_number = attempt
        self.outcome = Outcome(attempt, Retry() if error is None else error)
        self.kwargs: dict[str, object] = {}

    def get_fn_name(self) -> str:
        """As tenacity has it where there is no function."""
        return "<unknown>"


class Outcome:
    """In the shape of tenacity's ``Future``, which is done and has failed."""

    failed = True

    def __init__(self, attempt: int, error: Exception) -> None:
        self.attempt_number = attempt
        self._error = error

    def exception(self, timeout: float | None = None) -> Exception:
        """What the attempt failed with."""
        return self._error

    def result(self, timeout: float | None = None) -> NoReturn:
        """Raises it."""
        raise self._error

    def done(self) -> bool:
        """Always."""
        return True

    def cancelled(self) -> bool:
        """Never."""
        return False
