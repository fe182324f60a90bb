"""What follows an append that failed."""

from __future__ import annotations

from random import Random

import pytest

from rustmq_sdk import (
    AuthenticationFailed,
    OutcomeUnknown,
    PermanentDriverError,
    TransientDriverError,
    UnknownTopic,
)
from rustmq_sdk._core.append_attempts import AppendAttempts

TRANSIENT = TransientDriverError("refused", slot="sink", operation="append")


def attempts(*, repeatable: bool = True, deadline: float = 30.0) -> AppendAttempts:
    return AppendAttempts(repeatable=repeatable, deadline=deadline, timeout=30.0, rng=Random(1))


@pytest.mark.parametrize("repeatable", [True, False])
def test_a_refusal_that_may_heal_is_followed_by_another_attempt(repeatable: bool) -> None:
    these = attempts(repeatable=repeatable)
    assert all(0 <= these.pause_after(TRANSIENT, now=0.0) <= 1.0 for _ in range(20))


def test_a_backend_that_says_how_long_to_wait_is_obeyed() -> None:
    asked = TransientDriverError("slow down", slot="sink", operation="append", retry_after=7.0)
    assert attempts().pause_after(asked, now=0.0) == 7.0


def test_a_lost_answer_is_asked_for_again_only_where_that_stores_nothing_twice() -> None:
    lost = OutcomeUnknown("gone")
    assert attempts(repeatable=True).pause_after(lost, now=0.0) <= 1.0
    with pytest.raises(OutcomeUnknown, match="may or may not be stored") as caught:
        attempts(repeatable=False).pause_after(lost, now=0.0)

    assert caught.value.__cause__ is lost


@pytest.mark.parametrize("kind", [PermanentDriverError, AuthenticationFailed, UnknownTopic])
def test_what_will_not_heal_is_final(kind: type[PermanentDriverError]) -> None:
    error = kind("no", slot="sink", operation="append")
    with pytest.raises(kind) as caught:
        attempts().pause_after(error, now=0.0)

    assert caught.value is error


def test_when_time_is_up_the_last_refusal_is_the_error() -> None:
    these = attempts()
    these.pause_after(TRANSIENT, now=0.0)
    with pytest.raises(TransientDriverError) as caught:
        these.pause_after(TransientDriverError("again", slot="sink", operation="append"), now=30.0)

    assert caught.value.__notes__ == ["Not stored within send_timeout=30 s, after 2 attempts."]


def test_a_pause_that_would_outlast_the_deadline_is_not_waited_for() -> None:
    asked = TransientDriverError("slow down", slot="sink", operation="append", retry_after=31.0)
    with pytest.raises(TransientDriverError):
        attempts().pause_after(asked, now=0.0)


@pytest.mark.parametrize("last", [TRANSIENT, AuthenticationFailed("no", slot="sink", operation="append")])
def test_after_one_lost_answer_a_refusal_does_not_prove_that_nothing_is_stored(last: Exception) -> None:
    these = attempts()
    these.pause_after(OutcomeUnknown("gone"), now=0.0)
    with pytest.raises(OutcomeUnknown, match="after 2 attempts") as caught:
        these.pause_after(last, now=30.0)

    assert caught.value.__cause__ is last


def test_an_attempt_that_hangs_leaves_time_for_others_if_there_may_be_others() -> None:
    assert attempts(repeatable=True).time_for_one(now=0.0) == 10.0
    assert attempts(repeatable=True).time_for_one(now=25.0) == 5.0
    assert attempts(repeatable=False).time_for_one(now=0.0) == 30.0
    assert attempts(repeatable=False).time_for_one(now=31.0) == 0.0
