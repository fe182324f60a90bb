"""Prints nanoseconds a message and ratios after a run: absolute rates mean little on shared machines."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest

LOOPS = ("asyncio", "trio")


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> str:
    """Each benchmark runs on both loops."""
    return str(request.param)


@pytest.fixture
def measure(benchmark: Any, loop: str) -> Callable[..., None]:
    """``measure(program, messages, table=…, bare=…, goal=…)`` times an async function without arguments.

    Args given to it:
        table: under which headline the row is printed.
        bare: the row that others of the table are compared with.
        goal: what the ratio to the bare row should be, in words.
    """

    def run(program: Callable[[], Any], messages: int, *, table: str, bare: bool = False, goal: str = "") -> None:
        benchmark.extra_info.update(messages=messages, table=f"{table}, {loop}", bare=bare, goal=goal)
        benchmark.group = f"{table}, {loop}"
        gc.collect()
        # What was built before the measurement is not what is measured.
        gc.freeze()
        try:
            benchmark.pedantic(lambda: anyio.run(program, backend=loop), rounds=5, iterations=1, warmup_rounds=1)
        finally:
            gc.unfreeze()

    return run


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """The tables."""
    session = getattr(config, "_benchmarksession", None)
    benches = [bench for bench in session.benchmarks if bench.stats.data] if session is not None else []
    for table in dict.fromkeys(bench.extra_info["table"] for bench in benches):
        terminalreporter.write_line("")
        terminalreporter.write_sep("-", table)
        for line in _rows([bench for bench in benches if bench.extra_info["table"] == table]):
            terminalreporter.write_line(line)


def _rows(benches: list[Any]) -> Iterator[str]:
    def ns(bench: Any) -> float:
        return float(statistics.median(bench.stats.data) / bench.extra_info["messages"] * 1e9)

    base = next((ns(bench) for bench in benches if bench.extra_info["bare"]), None)
    for bench in benches:
        took = ns(bench)
        ratio = f"{took / base:6.2f} x the time of bare" if base else ""
        goal = f"(goal: {bench.extra_info['goal']})" if bench.extra_info["goal"] else ""
        name = bench.name.removeprefix("test_").split("[")[0].replace("_", " ")
        yield f"{name:48s} {took:9.0f} ns/message {1e3 / took:7.2f} M/s {ratio} {goal}".rstrip()
