from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest
from anyio import wait_all_tasks_blocked
from anyio.lowlevel import checkpoint

from rustmq_sdk._core.circuit import PROBE_PAUSE
from rustmq_sdk._runtime.breaker import Breaker, _LoopTimeStorage
from rustmq_sdk.errors import (
    AuthenticationFailed,
    CircuitOpen,
    ConfigurationError,
    StalePartition,
    TransientDriverError,
)
from rustmq_sdk.testing.clock import BACKENDS, virtual_time


@pytest.fixture(params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, Mapping[str, Any]]:
    return request.param, virtual_time(request.param)


class Backend:
    """A backend whose calls are counted and answered as told."""

    def __init__(self, *, failures: int = 3, open_for: float = 60.0) -> None:
        self.changes: list[tuple[str, str, str]] = []
        self.calls: list[float] = []
        self.running = 0
        self.most_running = 0
        self.answer: Any = TimeoutError("down")
        self.gate: anyio.Event | None = None
        self.breaker = Breaker(
            "source.fetch",
            failures=failures,
            open_for=open_for,
            clock=anyio.current_time,
            on_change=lambda *change: self.changes.append(change),
        )

    async def call(self, answer: Any = None) -> Any:
        self.calls.append(anyio.current_time())
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            if self.gate is not None:
                await self.gate.wait()

            await checkpoint()
        finally:
            self.running -= 1

        answer = self.answer if answer is None else answer
        if isinstance(answer, Exception):
            raise answer

        return answer

    async def fail(self, times: int = 1, error: Exception | None = None) -> None:
        for _ in range(times):
            with pytest.raises(type(error or TimeoutError())):
                await self.run(error or TimeoutError("down"))

    async def run(self, answer: Any = None) -> Any:
        return await self.breaker.run(self.call, answer, void=is_empty)

    @property
    def state(self) -> str:
        return self.breaker.state


def throttled(retry_after: float) -> TransientDriverError:
    return TransientDriverError("busy", slot="source", operation="fetch", retry_after=retry_after)


def is_empty(result: object) -> bool:
    return not result


async def test_results_and_errors_reach_the_caller_as_they_are() -> None:
    backend = Backend()
    assert await backend.run(["record"]) == ["record"]
    error = TimeoutError("down")
    with pytest.raises(TimeoutError) as caught:
        await backend.run(error)

    assert caught.value is error
    assert caught.value.__context__ is None


async def test_failures_in_a_row_open_the_circuit_and_a_success_starts_the_count_again() -> None:
    backend = Backend()
    await backend.fail(2)
    await backend.run("fine")
    await backend.fail(2)
    assert backend.state == "closed"
    await backend.fail(1)
    assert backend.state == "open"
    assert backend.changes == [("source.fetch", "closed", "open")]


async def test_an_open_circuit_is_quiet() -> None:
    backend = Backend()
    await backend.fail(3)
    backend.answer = "fine"
    backend.gate = anyio.Event()
    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(backend.run)

        await anyio.sleep(59.9)
        assert len(backend.calls) == 3
        await anyio.sleep(0.2)
        # One probe, and everybody waits for its outcome however long it takes.
        await anyio.sleep(1000)
        assert (len(backend.calls), backend.state) == (4, "half-open")
        backend.gate.set()

    assert len(backend.calls) == 13
    assert [change[1:] for change in backend.changes] == [
        ("closed", "open"),
        ("open", "half-open"),
        ("half-open", "closed"),
    ]


async def test_a_failed_probe_opens_the_circuit_for_another_period() -> None:
    backend = Backend()
    await backend.fail(3)
    await backend.fail(3)
    # The first three at once, then one a minute.
    assert backend.calls == pytest.approx([0, 0, 0, 60, 120, 180])
    assert backend.state == "open"


async def test_waiters_of_a_failed_probe_wait_for_the_next_period() -> None:
    backend = Backend()
    await backend.fail(3)
    backend.gate = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(backend.fail)
        await anyio.sleep(60.1)
        tasks.start_soon(backend.run, "fine")
        await anyio.sleep(9.9)
        backend.gate.set()

    # Failed at 70, so the next probe is at 130.
    assert backend.calls[3:] == pytest.approx([60, 130])
    assert backend.state == "closed"


async def test_the_next_waiter_probes_at_once_when_a_probe_is_cancelled() -> None:
    backend = Backend()
    await backend.fail(3)
    await anyio.sleep(60)
    backend.gate = anyio.Event()
    backend.answer = "fine"
    async with anyio.create_task_group() as outer:
        async with anyio.create_task_group() as inner:
            inner.start_soon(backend.run)
            await wait_all_tasks_blocked()
            outer.start_soon(backend.run)
            await wait_all_tasks_blocked()
            assert len(backend.calls) == 4
            inner.cancel_scope.cancel()

        await wait_all_tasks_blocked()
        assert (len(backend.calls), backend.state) == (5, "half-open")
        assert backend.most_running == 1
        backend.gate.set()

    assert backend.state == "closed"


async def test_a_cancelled_call_is_no_outcome() -> None:
    backend = Backend()
    backend.gate = anyio.Event()
    for _ in range(10):
        with anyio.move_on_after(1) as scope:
            await backend.run()

        # The cancellation arrived as itself; pybreaker's own wrappers replace it.
        assert scope.cancelled_caught

    assert backend.state == "closed"
    assert backend.breaker.last_error is None


async def test_a_cancelled_waiter_leaves_the_circuit_to_the_others() -> None:
    backend = Backend()
    await backend.fail(3)
    backend.answer = "fine"
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(backend.run)
        with anyio.move_on_after(10):
            await backend.run()

    assert len(backend.calls) == 4
    assert backend.state == "closed"


async def test_an_empty_result_is_no_outcome() -> None:
    backend = Backend()
    await backend.fail(2)
    assert await backend.run([]) == []
    assert backend.breaker.last_error is not None
    await backend.fail(1)
    assert backend.state == "open"


async def test_void_probes_follow_each_other_with_a_pause_until_one_says_something() -> None:
    backend = Backend()
    await backend.fail(3)
    for _ in range(3):
        await backend.run([])

    first = backend.calls[3]
    assert backend.calls[3:] == pytest.approx([first, first + PROBE_PAUSE, first + 2 * PROBE_PAUSE])
    assert backend.state == "half-open"
    await backend.run(["record"])
    assert backend.state == "closed"


async def test_waiters_take_over_after_a_void_probe() -> None:
    backend = Backend()
    await backend.fail(3)
    await anyio.sleep(60)
    backend.gate = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(backend.run, [])
        await wait_all_tasks_blocked()
        tasks.start_soon(backend.run, "fine")
        await wait_all_tasks_blocked()
        backend.gate.set()
        began = anyio.current_time()

    assert backend.state == "closed"
    assert backend.calls[-1] == pytest.approx(began + PROBE_PAUSE)


async def test_a_predicate_that_fails_does_not_keep_the_probe() -> None:
    backend = Backend()
    await backend.fail(3)
    with pytest.raises(ZeroDivisionError):
        await backend.breaker.run(backend.call, 5, void=lambda count: count / 0 > 1)

    await backend.run("fine")
    assert backend.state == "closed"


@pytest.mark.parametrize(
    "error",
    [
        StalePartition("fenced"),
        ConfigurationError("x", field="f", value=1, fix="y"),
        AuthenticationFailed("x", slot="source", operation="fetch"),
        KeyError("a bug"),
    ],
)
async def test_errors_that_say_nothing_about_health_neither_open_nor_close(error: Exception) -> None:
    backend = Backend()
    await backend.fail(10, error)
    assert backend.state == "closed"
    await backend.fail(3)
    await backend.fail(2, error)
    assert backend.state == "half-open"
    assert backend.calls[-1] == pytest.approx(60 + PROBE_PAUSE)


async def test_callers_from_outside_are_told_when_to_come_back() -> None:
    backend = Backend()
    await backend.fail(3)
    await anyio.sleep(20)
    with pytest.raises(CircuitOpen) as caught:
        await backend.breaker.run_or_raise(backend.call)

    assert caught.value.circuit == "source.fetch"
    assert caught.value.retry_in == pytest.approx(40)
    assert caught.value.__notes__ == ["The last failure was TimeoutError: down"]
    await anyio.sleep(caught.value.retry_in)
    assert await backend.breaker.run_or_raise(backend.call, "fine") == "fine"
    assert backend.state == "closed"


async def test_run_once_calls_whatever_the_state_and_its_success_closes() -> None:
    backend = Backend()
    await backend.fail(3)
    assert await backend.breaker.run_once(backend.call, "fine") == "fine"
    assert backend.state == "closed"
    assert backend.calls[-1] == pytest.approx(0)


async def test_a_cancelled_run_once_does_not_shorten_the_open_period() -> None:
    backend = Backend()
    await backend.fail(3)
    backend.gate = anyio.Event()
    with anyio.move_on_after(10):
        await backend.breaker.run_once(backend.call)

    assert backend.breaker.retry_in == pytest.approx(50)


async def test_nobody_comes_before_the_backend_said_so() -> None:
    backend = Backend()
    await backend.fail(1, throttled(7.0))
    assert backend.state == "closed"
    with pytest.raises(CircuitOpen, match="7"):
        await backend.breaker.run_or_raise(backend.call)

    assert await backend.run("fine") == "fine"
    assert backend.calls == pytest.approx([0, 7])
    assert backend.breaker.retry_in == 0


async def test_an_open_period_is_as_long_as_the_backend_asked() -> None:
    backend = Backend(open_for=60)
    await backend.fail(2)
    await backend.fail(1, throttled(300.0))
    assert backend.breaker.retry_in == pytest.approx(300)
    await backend.fail(1, throttled(5.0))
    assert backend.calls[-1] == pytest.approx(300)
    assert backend.breaker.retry_in == pytest.approx(60)


async def test_an_answer_to_another_call_ends_the_wait_that_the_backend_asked_for() -> None:
    backend = Backend()
    backend.gate = gate = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(backend.run, "fine")
        await wait_all_tasks_blocked()
        backend.gate = None
        await backend.fail(1, throttled(1000.0))
        tasks.start_soon(backend.run, "fine")
        await wait_all_tasks_blocked()
        assert len(backend.calls) == 2
        gate.set()

    assert len(backend.calls) == 3
    assert anyio.current_time() < 1000


async def test_the_last_error_is_text_and_forgotten_with_the_next_success() -> None:
    backend = Backend()
    await backend.fail(1)
    assert backend.breaker.last_error == "TimeoutError: down"
    await backend.run("fine")
    assert not backend.breaker.last_error


@pytest.mark.parametrize("anyio_backend", [("asyncio", virtual_time("asyncio"))], indirect=False)
async def test_native_cancellation_gives_the_probe_back(anyio_backend: object) -> None:
    backend = Backend()
    await backend.fail(3)
    await anyio.sleep(60)
    backend.gate = anyio.Event()
    task = asyncio.get_running_loop().create_task(backend.run())
    await wait_all_tasks_blocked()
    assert backend.state == "half-open"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    backend.gate = None
    assert await backend.breaker.run_or_raise(backend.call, "fine") == "fine"


def test_the_wall_clock_may_jump() -> None:
    readings = iter([1000.0, 1045.0])
    storage = _LoopTimeStorage(lambda: next(readings))
    storage.opened_at = datetime(1999, 12, 31, tzinfo=UTC)
    opened = storage.opened_at
    assert opened is not None
    assert abs(datetime.now(UTC) - opened - timedelta(seconds=45)) < timedelta(seconds=5)
    assert _LoopTimeStorage(lambda: 0.0).opened_at is None


def test_a_success_while_nothing_is_wrong_reads_no_clock() -> None:
    def clock() -> float:
        raise AssertionError("asked for the time")

    breaker = Breaker("x", failures=5, open_for=60, clock=clock)

    async def call() -> str:
        return "fine"

    for run in (breaker.run, breaker.run_or_raise, breaker.run_once):
        with pytest.raises(StopIteration, match="fine"):
            run(call).send(None)
