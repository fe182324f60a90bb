from __future__ import annotations

import asyncio

import pytest

from rustmq_sdk._core.circuit import CLOSED, HALF_OPEN, OPEN, UNCOUNTED, Gate, is_failure
from rustmq_sdk.errors import (
    AuthenticationFailed,
    CircuitOpen,
    ConfigurationError,
    ConsumerClosed,
    OutcomeUnknown,
    PermanentDriverError,
    StalePartition,
    TransientDriverError,
    UnknownTopic,
    Unsupported,
)


@pytest.mark.parametrize(
    "error",
    [
        TransientDriverError("x", slot="source", operation="commit"),
        TimeoutError(),
        OutcomeUnknown("the answer was lost"),
    ],
)
def test_what_the_backend_is_to_blame_for_is_a_failure(error: Exception) -> None:
    assert is_failure(error)


@pytest.mark.parametrize(
    "error",
    [
        StalePartition("fenced"),
        ConfigurationError("x", field="f", value=1, fix="y"),
        AuthenticationFailed("x", slot="source", operation="fetch"),
        UnknownTopic("x", slot="source", operation="fetch"),
        PermanentDriverError("x", slot="source", operation="fetch"),
        Unsupported("x"),
        ConsumerClosed("x"),
        CircuitOpen("other", 1.0),
        KeyError("a bug"),
        asyncio.CancelledError(),
        KeyboardInterrupt(),
        GeneratorExit(),
    ],
)
def test_what_says_nothing_about_the_backends_health_is_none(error: BaseException) -> None:
    assert not is_failure(error)


def half_open() -> Gate:
    gate = Gate()
    gate.move(OPEN)
    gate.trouble(10.0)
    gate.move(HALF_OPEN)
    return gate


def test_closed_everybody_may_enter_and_all_of_them_count() -> None:
    gate = Gate()
    tickets = [gate.enter() for _ in range(3)]
    assert gate.admits(0)
    assert gate.quiet
    assert all(gate.counts(ticket) for ticket in tickets)


def test_open_nobody_may_enter_before_the_period_is_over() -> None:
    gate = Gate()
    gate.move(OPEN)
    gate.trouble(10.0)
    assert not gate.admits(9.9)
    assert gate.admits_in(4) == 6
    assert gate.admits(10.0)
    assert gate.admits_in(11) == 0


def test_half_open_one_enters_at_a_time() -> None:
    gate = half_open()
    ticket = gate.enter()
    assert not gate.admits(1e9)
    assert gate.admits_in(1e9) is None
    assert gate.enter() == UNCOUNTED
    assert gate.counts(ticket)
    assert not gate.counts(UNCOUNTED)


def test_a_ticket_of_an_earlier_state_does_not_count() -> None:
    gate = Gate()
    closed = gate.enter()
    gate.move(OPEN)
    assert not gate.counts(closed)
    gate.move(HALF_OPEN)
    probe = gate.enter()
    assert not gate.counts(closed)
    gate.move(CLOSED)
    assert not gate.counts(probe)
    assert not gate.counts(closed)


def test_a_probe_given_back_makes_room_for_another_after_its_pause() -> None:
    gate = half_open()
    first = gate.enter()
    gate.give_back(first, 12.0)
    assert not gate.admits(11.9)
    assert gate.admits(12.0)
    second = gate.enter()
    assert not gate.counts(first)
    gate.give_back(first, 0.0)
    assert gate.probing
    assert gate.counts(second)


def test_giving_back_does_not_shorten_an_open_period() -> None:
    gate = half_open()
    gate.give_back(gate.enter(), 0.0)
    assert not gate.admits(9.9)
    assert gate.admits(10.0)


def test_giving_back_what_was_admitted_closed_changes_nothing() -> None:
    gate = Gate()
    gate.give_back(gate.enter(), 100.0)
    assert gate.admits(0)
    assert gate.quiet


def test_trouble_ends_the_quiet_and_calm_brings_it_back() -> None:
    gate = Gate()
    gate.trouble(5.0)
    assert (gate.quiet, gate.admits(4)) == (False, False)
    gate.trouble(3.0)
    assert not gate.admits(4)
    gate.calm()
    assert (gate.quiet, gate.admits(0)) == (True, True)


def test_closing_forgets_all_trouble() -> None:
    gate = half_open()
    gate.enter()
    gate.move(CLOSED)
    assert gate.quiet
    assert gate.admits(0)
