"""A circuit breaker around broker calls: pybreaker counts and decides, and no await is ever inside of it.

What pybreaker's own wrappers do around an await is not safe: a cancelled call counts as a failure, and its cancellation
is replaced by a ``CircuitBreakerError``; half-open, everybody is admitted; a call that was admitted before the circuit
opened still moves it when it ends. So a call is admitted here, awaited, and then only its outcome is reported.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import NoReturn, TypeVar, TypeVarTuple

import anyio
from pybreaker import CircuitBreaker, CircuitMemoryStorage

from rustmq_sdk._core.circuit import CLOSED, OPEN, PROBE_PAUSE, Gate, is_failure
from rustmq_sdk._error_text import name_and_text
from rustmq_sdk.errors import CircuitOpen, OutcomeUnknown, TransientDriverError

T = TypeVar("T")
Args = TypeVarTuple("Args")

MAY_PASS = (TransientDriverError, OutcomeUnknown, CircuitOpen, TimeoutError)
"""How a call can fail that is worth making again: refused, perhaps made, not admitted, or not answered in time."""


class Breaker:
    """One circuit: calls of one kind to one backend.

    Promises:
        1. Open, the backend sees no call of ``run`` and ``run_or_raise``; half-open, one at a time.
        2. A cancelled call is no outcome: cancellation passes through untouched, a probe gives its place back.
        3. Late results count for nothing: neither those of calls admitted before the state changed, nor those of
           ``run_once`` beside a probe.
        4. Nothing is swallowed: the operation's result and its exceptions reach the caller.

    An operation that may hang must raise ``TimeoutError`` by itself (``anyio.fail_after`` inside of it): a deadline
    around ``run`` is a cancellation.

    ``TransientDriverError.retry_after`` is respected in every state: nobody is admitted before, and an open period is
    at least that long.

    Args:
        name: for example ``"source.fetch"``.
        failures: failures in a row that open the circuit.
        open_for: seconds it stays open before a probe.
        clock: the loop's clock.
        on_change: called with the name, the old and the new state, after the change. It must not raise.
    """

    def __init__(
        self,
        name: str,
        *,
        failures: int,
        open_for: float,
        clock: Callable[[], float],
        on_change: Callable[[str, str, str], None] | None = None,
    ) -> None:
        self.name = name
        self._open_for = open_for
        self._clock = clock
        self._on_change = on_change
        self._gate = Gate()
        self._changed: anyio.Event | None = None
        self._last_error: str | None = None
        self._circuit = CircuitBreaker(
            fail_max=failures,
            reset_timeout=open_for,
            state_storage=_LoopTimeStorage(clock),
            name=name,
            throw_new_error_on_trip=False,
        )

    @property
    def state(self) -> str:
        """``"closed"``, ``"open"`` or ``"half-open"``. Open lasts until somebody probes."""
        return self._gate.state

    @property
    def retry_in(self) -> float:
        """Seconds until it is worth asking again: 0 where a call would be admitted now."""
        wait = self._gate.admits_in(self._clock())
        return PROBE_PAUSE if wait is None else wait

    @property
    def last_error(self) -> str | None:
        """Class and text of the last failure, until a success proves it past.

        Text, since an exception keeps its frames alive, and they the messages of the failed call.
        """
        return self._last_error

    async def run(
        self,
        operation: Callable[[*Args], Awaitable[T]],
        *args: *Args,
        void: Callable[[T], bool] | None = None,
    ) -> T:
        """Calls ``operation(*args)`` as soon as the circuit admits it, however long that takes.

        Args:
            operation: what may fail.
            args: its arguments.
            void: True for a result that is no outcome (an empty fetch: some clients answer it from a dead cluster).
        """
        gate = self._gate
        # Nothing is wrong nearly always, and then this is all: no clock, no lock, nothing reported.
        ticket = gate.epoch if gate.quiet else await self._admission()
        return await self._attempt(ticket, operation, args, void)

    async def run_or_raise(
        self,
        operation: Callable[[*Args], Awaitable[T]],
        *args: *Args,
        void: Callable[[T], bool] | None = None,
    ) -> T:
        """As :meth:`run`, but does not wait.

        Raises:
            CircuitOpen: the call is not admitted now; ``retry_in`` says when to try again.
        """
        gate = self._gate
        ticket = gate.epoch if gate.quiet else self._admit()
        if ticket is None:
            error = CircuitOpen(self.name, self.retry_in)
            if self._last_error:
                error.add_note(f"The last failure was {self._last_error}")

            raise error

        return await self._attempt(ticket, operation, args, void)

    async def run_once(
        self,
        operation: Callable[[*Args], Awaitable[T]],
        *args: *Args,
        void: Callable[[T], bool] | None = None,
    ) -> T:
        """Calls at once, whatever the state: what closes or gives up a partition has no second chance.

        Where the circuit is not closed and no probe is out, the call is the probe.
        """
        return await self._attempt(self._enter(), operation, args, void)

    async def _admission(self) -> int:
        while (ticket := self._admit()) is None:
            # Nothing suspends between the look and the wait, so no change can fall between them; whoever wakes here
            # looks again, and one of those who waited for the same moment becomes the probe.
            if self._changed is None:
                self._changed = anyio.Event()

            changed = self._changed
            with anyio.move_on_after(self._gate.admits_in(self._clock())):
                await changed.wait()

        return ticket

    def _admit(self) -> int | None:
        return self._enter() if self._gate.admits(self._clock()) else None

    def _enter(self) -> int:
        if self._gate.state == OPEN:
            self._decide(self._circuit.half_open)

        return self._gate.enter()

    async def _attempt(
        self,
        ticket: int,
        operation: Callable[[*Args], Awaitable[T]],
        args: tuple[*Args],
        void: Callable[[T], bool] | None,
    ) -> T:
        gate = self._gate
        try:
            result = await operation(*args)
            silent = not gate.quiet and void is not None and void(result)
        except Exception as error:
            self._failed(ticket, error)
            raise
        except BaseException:
            self._give_back(ticket, 0.0)
            raise

        if silent:
            self._give_back(ticket, PROBE_PAUSE)
        elif not gate.quiet:
            self._succeeded(ticket)

        return result

    def _failed(self, ticket: int, error: Exception) -> None:
        if not is_failure(error):
            self._give_back(ticket, PROBE_PAUSE)
        elif self._gate.counts(ticket):
            self._last_error = name_and_text(error)
            retry_after = error.retry_after if isinstance(error, TransientDriverError) else None
            self._gate.trouble(self._clock() + (retry_after or 0.0))
            self._decide(self._circuit.call, _fail)

    def _succeeded(self, ticket: int) -> None:
        if self._gate.counts(ticket):
            self._last_error = None
            self._decide(self._circuit.call, _succeed)
            self._gate.calm()
            self._wake()

    def _give_back(self, ticket: int, pause: float) -> None:
        self._gate.give_back(ticket, self._clock() + pause)
        self._wake()

    def _decide(self, decision: Callable[..., object], *outcome: Callable[[], None]) -> None:
        """Has pybreaker decide, and follows it."""
        before = self._gate.state
        with suppress(_Failure):
            decision(*outcome)

        after = self._circuit.current_state
        if after == before:
            return

        self._gate.move(after)
        if after == OPEN:
            self._gate.trouble(self._clock() + self._open_for)

        self._wake()
        if self._on_change is not None:
            self._on_change(self.name, before, after)

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None


class _Failure(Exception):
    """What pybreaker is told instead of the real error, whose traceback would grow in its hands."""


def _fail() -> NoReturn:
    raise _Failure


def _succeed() -> None:
    return None


class _LoopTimeStorage(CircuitMemoryStorage):
    """Remembers by the loop's clock when the circuit opened: pybreaker asks the wall clock, which jumps."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(CLOSED)
        self._clock = clock
        self._opened: float | None = None

    @property
    def opened_at(self) -> datetime | None:
        if self._opened is None:
            return None

        return datetime.now(UTC) - timedelta(seconds=self._clock() - self._opened)

    @opened_at.setter
    def opened_at(self, _now: datetime) -> None:
        self._opened = self._clock()
