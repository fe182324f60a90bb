from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
import tenacity
from hypothesis import given
from hypothesis import strategies as st

from rustmq_sdk._core.retry import backoff, decide
from rustmq_sdk._core.tenacity_wait import FailedAttempt
from rustmq_sdk.config import RetryPolicy
from rustmq_sdk.errors import ConfigurationError, Reject, Retry

STEADY = RetryPolicy(initial=1.0, jitter="none")
attempts = st.integers(1, 10_000)
seeds = st.integers(0, 1000).map(Random)


class Outage(OSError):
    """More special than OSError."""


class Flooded(Outage):
    """More special than Outage."""


def decided(policy: RetryPolicy, attempt: int = 1, error: Exception | None = None, delay: float | None = None) -> Any:
    return decide(policy, attempt, error, delay=delay, rng=Random(1))


def test_the_pause_doubles_up_to_the_longest() -> None:
    pauses = [backoff(STEADY, attempt, Random(1)) for attempt in range(1, 9)]
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]


@given(attempts, st.floats(0, 1e6), st.floats(1, 100), st.floats(0, 1e6), seeds)
def test_a_pause_is_never_negative_nor_longer_than_allowed(
    attempt: int, initial: float, multiplier: float, max_delay: float, rng: Random
) -> None:
    policy = RetryPolicy(initial=initial, multiplier=multiplier, max_delay=max_delay)
    assert 0 <= backoff(policy, attempt, rng) <= max_delay


def test_attempts_beyond_the_largest_float_wait_as_long_as_allowed() -> None:
    assert backoff(STEADY, 1_000_000, Random(1)) == 60
    assert backoff(RetryPolicy(initial=0, jitter="none"), 1_000_000, Random(1)) == 0


def test_full_jitter_spreads_over_the_whole_pause_and_is_seeded() -> None:
    policy = RetryPolicy(initial=8.0)
    drawn = [backoff(policy, 1, rng) for rng in [Random(7)] for _ in range(2000)]
    assert min(drawn) < 0.1
    assert max(drawn) > 7.9
    assert math.isclose(sum(drawn) / len(drawn), 4.0, rel_tol=0.05)
    assert drawn[0] == backoff(policy, 1, Random(7))


@given(st.integers(1, 50), st.integers(1, 50), st.none() | st.floats(0, 1e9))
def test_a_message_is_tried_exactly_max_attempts_times(attempt: int, max_attempts: int, delay: float | None) -> None:
    policy = RetryPolicy(max_attempts=max_attempts)
    again = decided(policy, attempt, ValueError(), delay)
    assert (again is None) == (attempt >= max_attempts)


def test_an_asked_delay_is_obeyed_while_attempts_are_left() -> None:
    assert decided(STEADY, 4, None, 1234.5) == 1234.5
    assert decided(STEADY, 5, None, 1234.5) is None


@pytest.mark.parametrize("delay", [-1.0, -math.inf, math.nan])
def test_an_impossible_delay_is_at_once(delay: float) -> None:
    assert decided(STEADY, 1, None, delay) == 0.0


def test_a_fatal_error_gives_up_at_the_first_attempt_whatever_delay_was_asked() -> None:
    policy = RetryPolicy(fatal=(LookupError,))
    assert decided(policy, 1, KeyError("x")) is None
    assert decided(policy, 1, KeyError("x"), 5.0) is None
    assert decided(policy, 1, ValueError()) is not None


def test_the_policy_of_the_most_derived_class_applies() -> None:
    policy = RetryPolicy(
        jitter="none",
        overrides={
            OSError: RetryPolicy(initial=10.0, jitter="none"),
            Exception: RetryPolicy(initial=20.0, jitter="none"),
            Outage: RetryPolicy(initial=30.0, jitter="none", max_attempts=2),
        },
    )
    assert decided(policy, 1, OSError()) == 10
    assert decided(policy, 1, ValueError()) == 20
    assert decided(policy, 1, Flooded()) == 30
    assert decided(policy, 2, Flooded()) is None
    assert decided(policy, 2, OSError()) == 20
    assert decided(policy, 1, None) == 0.5


def test_of_fatal_and_overridden_classes_the_most_derived_one_decides() -> None:
    rescued = RetryPolicy(fatal=(OSError,), overrides={Outage: STEADY})
    assert decided(rescued, 1, OSError()) is None
    assert decided(rescued, 1, Flooded()) == 1
    doomed = RetryPolicy(fatal=(Outage,), overrides={OSError: STEADY})
    assert decided(doomed, 1, Flooded()) is None
    assert decided(doomed, 1, OSError()) == 1


def test_an_overriding_policy_has_its_own_fatal_errors_and_overrides() -> None:
    policy = RetryPolicy(
        overrides={OSError: RetryPolicy(fatal=(Outage,), overrides={Flooded: STEADY}, initial=9.0, jitter="none")}
    )
    assert decided(policy, 1, OSError()) == 9
    assert decided(policy, 1, Outage()) is None
    assert decided(policy, 1, Flooded()) == 1


@given(attempts)
def test_a_retry_asked_for_by_the_handler_never_exhausts_the_message(attempt: int) -> None:
    policy = RetryPolicy(max_attempts=1, fatal=(Exception,), jitter="none")
    assert decided(policy, attempt, Retry(2.5)) == 2.5
    assert decided(policy, attempt, Retry(), 3.5) == 3.5
    assert decided(policy, attempt, Retry()) == min(60, 0.5 * 2.0 ** min(attempt - 1, 20))


def test_a_retry_follows_the_policy_for_its_class_when_it_names_no_delay() -> None:
    policy = RetryPolicy(overrides={Retry: RetryPolicy(initial=7.0, jitter="none")})
    assert decided(policy, 1, Retry()) == 7


def test_a_reject_gives_up() -> None:
    assert decided(STEADY, 1, Reject("no"), 1.0) is None


def test_a_group_around_one_error_counts_as_that_error() -> None:
    policy = RetryPolicy(fatal=(KeyError,), initial=1.0, jitter="none")
    assert decided(policy, 1, ExceptionGroup("task group", [ExceptionGroup("another", [KeyError()])])) is None
    assert decided(policy, 9, ExceptionGroup("task group", [Retry(4.0)])) == 4
    assert decided(policy, 1, ExceptionGroup("task group", [KeyError(), ValueError()])) == 1


STRATEGIES = [
    (tenacity.wait_fixed(3), 3),
    (tenacity.wait_none(), 0),
    (tenacity.wait_fixed(3) + tenacity.wait_fixed(4), 7),
    (tenacity.wait_combine(tenacity.wait_fixed(1), tenacity.wait_fixed(2)), 3),
    (tenacity.wait_chain(*[tenacity.wait_fixed(pause) for pause in (1, 5, 9)]), 5),
    (tenacity.wait_incrementing(start=10, increment=5), 15),
    (tenacity.wait_exponential(multiplier=3), 6),
    (tenacity.wait_exponential_jitter(jitter=0), 2),
    (tenacity.wait_random(min=4, max=4), 4),
    (tenacity.wait_random_exponential(max=0), 0),
    (tenacity.wait_full_jitter(max=0), 0),
    (tenacity.wait_exception(lambda error: float(len(str(error)))), 4),
    (lambda state: state.attempt_number * 100, 200),
]


@pytest.mark.parametrize(("wait", "pause"), STRATEGIES)
def test_a_strategy_of_tenacity_takes_the_place_of_the_backoff(wait: Callable[[Any], float], pause: float) -> None:
    # Its own limits count, not max_delay and jitter; how often is still max_attempts' to say.
    policy = RetryPolicy(wait=wait, max_delay=0.001)
    assert decided(policy, 2, ValueError("four")) == pause
    assert decided(policy, 5, ValueError("four")) is None
    assert decided(policy, 2, ValueError("four"), 0.25) == 0.25


def test_every_strategy_that_tenacity_has_is_tried_above() -> None:
    names = {name for name in dir(tenacity) if name.startswith("wait_")}
    tried = {type(wait).__name__ for wait, _ in STRATEGIES}
    # wait_full_jitter is another name of wait_random_exponential.
    assert names - tried <= {"wait_full_jitter"}


def test_the_attempt_has_everything_that_tenacity_shows_to_a_strategy() -> None:
    theirs = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
    theirs.set_exception((ValueError, error := ValueError("four"), None))
    ours = FailedAttempt(3, error)
    # What only the retrying loop itself calls.
    inner = {"set_exception", "set_result", "prepare_for_next_attempt"}
    assert {name for name in dir(theirs) if not name.startswith("_")} - inner <= set(dir(ours))
    assert theirs.outcome is not None
    assert (ours.outcome.failed, ours.outcome.exception()) == (theirs.outcome.failed, theirs.outcome.exception())
    assert ours.outcome.done()
    assert not ours.outcome.cancelled()
    assert ours.get_fn_name() == "<unknown>"
    with pytest.raises(ValueError, match="four"):
        ours.outcome.result()


def test_a_plain_nack_shows_as_a_retry_to_a_strategy() -> None:
    policy = RetryPolicy(wait=tenacity.wait_exception(lambda error: 6.0 if isinstance(error, Retry) else 0.0))
    assert decided(policy, 1, None) == 6


@pytest.mark.parametrize("answer", [-1.0, math.nan, math.inf, None, "soon"])
def test_a_strategy_that_answers_no_pause_is_a_configuration_error(answer: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"retry\.wait"):
        decided(RetryPolicy(wait=lambda _: answer), 1, ValueError())


def test_a_strategy_that_fails_is_a_configuration_error_with_its_cause() -> None:
    def wait(_state: Any) -> float:
        raise KeyError("Retry-After")

    with pytest.raises(ConfigurationError, match="Retry-After") as caught:
        decided(RetryPolicy(wait=wait), 1, ValueError())

    assert isinstance(caught.value.__cause__, KeyError)
