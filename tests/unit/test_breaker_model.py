"""The breaker against a model that is too simple to be wrong, over calls that overlap in every order.

Calls are coroutines run by hand: one step starts a call, another one ends it, so every interleaving is reached without
a loop, and time is a number.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from rustmq_sdk._core.circuit import PROBE_PAUSE
from rustmq_sdk._runtime.breaker import Breaker
from rustmq_sdk.errors import CircuitOpen, StalePartition

FAILURES = 3
OPEN_FOR = 60.0


class Suspended:
    """Suspends its coroutine until somebody sends the answer or throws the error in."""

    def __await__(self) -> Generator[None, Any, Any]:
        return (yield)


@dataclass(eq=False)
class Call:
    coroutine: Coroutine[Any, Any, Any]
    period: int
    """In which state of the model, counted from the first, it was admitted."""
    probe: bool


class Cancelled(BaseException):
    """As both loops have one of their own."""


class BreakerModel(RuleBasedStateMachine):
    calls = Bundle("calls")

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.reached = 0
        self.started: list[Coroutine[Any, Any, Any]] = []
        self.seen: list[tuple[str, str, str]] = []
        self.breaker = Breaker(
            "x",
            failures=FAILURES,
            open_for=OPEN_FOR,
            clock=lambda: self.now,
            on_change=lambda *change: self.seen.append(change),
        )
        # The model
        self.state = "closed"
        self.period = 0
        self.failures = 0
        self.not_before = 0.0
        self.probe: Call | None = None
        self.changes: list[tuple[str, str, str]] = []

    async def operation(self) -> Any:
        self.reached += 1
        return await Suspended()

    def move(self, state: str) -> None:
        self.changes.append(("x", self.state, state))
        self.state = state
        self.period += 1
        self.failures = 0
        self.probe = None
        if state == "open":
            self.not_before = self.now + OPEN_FOR
        elif state == "closed":
            self.not_before = 0.0

    def admitted(self, coroutine: Coroutine[Any, Any, Any], *, beside: bool) -> Call:
        if self.state == "open":
            self.move("half-open")

        self.started.append(coroutine)
        call = Call(coroutine, self.period, probe=self.state == "half-open" and not beside)
        if call.probe:
            self.probe = call

        return call

    @rule(target=calls)
    def start(self) -> Any:
        coroutine, reached = self.breaker.run_or_raise(self.operation, void=_is_empty), self.reached
        if self.probe is None and self.now >= self.not_before:
            coroutine.send(None)
            assert self.reached == reached + 1
            return self.admitted(coroutine, beside=False)

        with pytest.raises(CircuitOpen) as refused:
            coroutine.send(None)

        assert refused.value.retry_in > 0
        assert self.reached == reached
        return multiple()

    @rule(target=calls)
    def start_once(self) -> Call:
        coroutine, reached = self.breaker.run_once(self.operation, void=_is_empty), self.reached
        coroutine.send(None)
        assert self.reached == reached + 1
        return self.admitted(coroutine, beside=self.probe is not None)

    @rule(call=consumes(calls))
    def succeed(self, call: Call) -> None:
        _finish(call, "record")
        if call is self.probe:
            self.move("closed")
        elif self.counts(call):
            self.failures = 0

    @rule(call=consumes(calls))
    def fail(self, call: Call) -> None:
        _throw(call, TimeoutError("down"))
        if call is self.probe:
            self.move("open")
        elif self.counts(call):
            self.failures += 1
            if self.failures == FAILURES:
                self.move("open")

    @rule(call=consumes(calls))
    def find_nothing(self, call: Call) -> None:
        _finish(call, "")
        self.no_outcome(call, PROBE_PAUSE)

    @rule(call=consumes(calls))
    def be_fenced(self, call: Call) -> None:
        _throw(call, StalePartition("fenced"))
        self.no_outcome(call, PROBE_PAUSE)

    @rule(call=consumes(calls))
    def be_cancelled(self, call: Call) -> None:
        _throw(call, Cancelled())
        self.no_outcome(call, 0.0)

    @rule(seconds=st.sampled_from([0.1, PROBE_PAUSE, 1.0, 30.0, OPEN_FOR, 1000.0]))
    def let_time_pass(self, seconds: float) -> None:
        self.now += seconds

    def counts(self, call: Call) -> bool:
        return self.state == "closed" and call.period == self.period

    def no_outcome(self, call: Call, pause: float) -> None:
        if call is self.probe:
            self.probe = None
            self.not_before = max(self.not_before, self.now + pause)

    @invariant()
    def agrees(self) -> None:
        assert self.breaker.state == self.state
        assert self.seen == self.changes
        expected = PROBE_PAUSE if self.probe else max(0.0, self.not_before - self.now)
        assert self.breaker.retry_in == expected
        assert self.breaker._circuit.fail_counter == self.failures or self.state != "closed"

    def teardown(self) -> None:
        for coroutine in self.started:
            coroutine.close()


def _is_empty(result: object) -> bool:
    return not result


def _finish(call: Call, result: object) -> None:
    with pytest.raises(StopIteration) as done:
        call.coroutine.send(result)

    assert done.value.value == result


def _throw(call: Call, error: BaseException) -> None:
    with pytest.raises(type(error)) as raised:
        call.coroutine.throw(error)

    # Itself, not something in its place: cancellation above all.
    assert raised.value is error


TestBreakerModel = BreakerModel.TestCase
