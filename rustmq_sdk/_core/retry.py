"""From an attempt that failed, and how, to the pause before the next one, or to giving up."""

from __future__ import annotations

from random import Random

from rustmq_sdk._backoff import pause_after
from rustmq_sdk._core.tenacity_wait import pause_by
from rustmq_sdk.config import RetryPolicy
from rustmq_sdk.errors import Reject, Retry


def decide(
    policy: RetryPolicy, attempt: int, error: Exception | None, *, delay: float | None, rng: Random
) -> float | None:
    """Seconds until the next attempt; None gives up: the message goes to the dead letters.

    In this order:

    1. ``Reject`` gives up.
    2. ``Retry`` tries again, whatever the attempts so far and whatever the policy says.
    3. An error whose class is ``fatal`` gives up, even if a delay was asked for. Where several classes of its method
       resolution order are named, in ``fatal`` or in ``overrides``, the most derived one decides.
    4. An attempt that was the policy's last one gives up.
    5. The asked ``delay`` is obeyed, or else the policy's backoff.

    A group that wraps a single exception, as task groups make them, counts as that exception.

    Args:
        policy: the consumer's.
        attempt: the attempt that failed; the first is 1.
        error: what the handler raised; None for a plain ``nack()``.
        delay: seconds that were asked for. Below 0 (or not a number) is at once: a message is not lost over it.
        rng: where jitter comes from.

    Raises:
        ConfigurationError: the policy's ``wait`` strategy failed, or answered something that is no pause.
    """
    error = _unwrap(error)
    if isinstance(error, Reject):
        return None

    chosen = choose(policy, error)
    if isinstance(error, Retry):
        delay = error.delay if delay is None else delay
        chosen = chosen or policy
    elif chosen is None or attempt >= chosen.max_attempts:
        return None

    if delay is None:
        return backoff(chosen, attempt, rng, error)

    return max(0.0, delay)


def choose(policy: RetryPolicy, error: Exception | None) -> RetryPolicy | None:
    """The policy that applies to the error, or None if it is fatal. A policy in ``overrides`` may have its own."""
    for kind in type(error).__mro__:
        if kind in policy.fatal:
            return None

        if kind in policy.overrides:
            override: RetryPolicy = policy.overrides[kind]
            return choose(override, error)

    return policy


def backoff(policy: RetryPolicy, attempt: int, rng: Random, error: Exception | None = None) -> float:
    """Seconds between attempt ``attempt``, which failed, and the next one.

    ``initial * multiplier ** (attempt - 1)``, at most ``max_delay``; with full jitter a uniformly random part of it
    (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015). A ``wait`` strategy takes the place of all
    four settings.
    """
    if policy.wait is not None:
        return pause_by(policy.wait, attempt, error)

    # Attempts of a message that asks for its retries are not limited.
    pause = pause_after(attempt - 1, first=policy.initial, most=policy.max_delay, factor=float(policy.multiplier))
    return rng.uniform(0.0, pause) if policy.jitter == "full" else pause


def _unwrap(error: Exception | None) -> Exception | None:
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]

    return error
