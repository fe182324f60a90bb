"""From an append that failed, and how, to the pause before it is repeated, or to the error its callers get."""

from __future__ import annotations

from random import Random

from rustmq_sdk._core.retry import backoff
from rustmq_sdk.config import RetryPolicy
from rustmq_sdk.errors import OutcomeUnknown, TransientDriverError

# A reconnect takes tens of milliseconds, a failover seconds; librdkafka's retry.backoff.ms is 100, its maximum 1,000.
_PAUSES = RetryPolicy(initial=0.1, max_delay=1.0)
_ATTEMPTS_THAT_FIT = 3


class AppendAttempts:
    """The attempts of one append.

    Args:
        repeatable: doing it twice stores nothing twice, so it may be repeated when its answer was lost.
        deadline: when the oldest message must be durable.
        timeout: that time in seconds, for error messages.
    """

    def __init__(self, *, repeatable: bool, deadline: float, timeout: float, rng: Random) -> None:
        self._repeatable = repeatable
        self._deadline = deadline
        self._timeout = timeout
        self._rng = rng
        self._made = 0
        self._unknown = False

    def time_for_one(self, now: float) -> float:
        """Seconds the next attempt may take.

        One that hangs must leave time for others, unless it is the only one that can be made.
        """
        left = max(0.0, self._deadline - now)
        return min(left, self._timeout / _ATTEMPTS_THAT_FIT) if self._repeatable else left

    def pause_after(self, error: Exception, now: float) -> float:
        """Seconds until the next attempt.

        Raises:
            OutcomeUnknown: the messages may or may not be stored, and that cannot be found out any more.
            Exception: ``error`` itself. They are not stored: it will not heal, or there is no time left.
        """
        self._made += 1
        lost_answer = isinstance(error, OutcomeUnknown | TimeoutError)
        self._unknown = self._unknown or lost_answer
        pause = self._pause(error)
        again = lost_answer or isinstance(error, TransientDriverError)
        if lost_answer and not self._repeatable:
            again = False

        if again and now + pause < self._deadline:
            return pause

        raise self._final(error, in_time=not again)

    def _pause(self, error: Exception) -> float:
        asked = error.retry_after if isinstance(error, TransientDriverError) else None
        return max(asked or 0.0, backoff(_PAUSES, self._made, self._rng))

    def _final(self, error: Exception, *, in_time: bool) -> Exception:
        what = "" if in_time else f" within send_timeout={self._timeout:g} s"
        tries = f"{self._made} attempt{'s' * (self._made != 1)}"
        if self._unknown:
            unknown = OutcomeUnknown(
                f"no answer{what} to an append, after {tries}: its messages may or may not be stored. "
                "Look before sending them again, or let consumers recognise duplicates by a key of yours"
            )
            unknown.__cause__ = error
            return unknown

        if not in_time:
            error.add_note(f"Not stored{what}, after {tries}.")

        return error
