"""How fast they read."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any, TypeAlias

from bench.children import ChildFailed, run
from bench.compare.contenders import GETMANY, GOALS, Contender, Goal
from bench.compare.server import more, topic
from bench.tables import machine, median, number, progress, show

SMALL = 100
LEAST = 500
"""Messages that also the slowest ones read."""
HEADER = ("", "k msg/s", "us of CPU a message", "commits a million", "relative to the first")

Rounds: TypeAlias = "list[dict[str, Any]]"
"""What was found in each; nothing in one that failed."""


class Results:
    """What every contender has reached with messages of one size."""

    def __init__(self, size: int, messages: int) -> None:
        self.size = size
        self.messages = messages
        self.problems: dict[str, str] = {}
        self._rounds: dict[str, Rounds] = {}

    def add(self, name: str, found: dict[str, Any]) -> None:
        self._rounds.setdefault(name, []).append(found)

    def fail(self, name: str, problem: str) -> None:
        self.problems[name] = problem
        self.add(name, {})

    def of(self, name: str, what: str) -> float | None:
        return median(found.get(what) for found in self._rounds.get(name, ()))

    def relative(self, name: str, base: str) -> float | None:
        """The median of the ratios of each round: what disturbs a round disturbs both."""
        return median(one["rate"] / other["rate"] for one, other in self._pairs(name, base))

    def relative_by_cpu(self, name: str, base: str) -> float | None:
        """The same, had each of them had the processors for itself."""
        return median(other["cpu"] / one["cpu"] for one, other in self._pairs(name, base))

    def _pairs(self, name: str, base: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        pairs = zip(self._rounds.get(name, ()), self._rounds.get(base, ()), strict=False)
        return ((one, other) for one, other in pairs if one and other)


def main(options: argparse.Namespace, chosen: Sequence[Contender], address: str) -> None:
    with ExitStack() as topics:
        runs = []
        for size in options.sizes:
            results = Results(size, options.messages if size <= SMALL else options.messages // 2)
            progress(f"compare: {results.messages:,} messages of {size} bytes")
            runs.append((results, topics.enter_context(topic(address, results.messages + more(size), size))))

        for turn in range(options.rounds):
            for results, name in runs:
                for contender in chosen:
                    progress(f"compare: round {turn + 1} of {options.rounds}, {results.size} bytes, {contender.name}")
                    _once(contender, address, name, results)

    found = [results for results, _ in runs]
    for results in found:
        show(
            f"{results.messages:,} messages of {results.size} bytes, medians of {options.rounds} rounds. {machine()}",
            HEADER,
            [_row(contender, results) for contender in chosen],
        )
        for name, problem in results.problems.items():
            print(f"\n{name}: {problem}")

    show(
        "What was meant to be reached: the ratio of two rates",
        ("", *(f"{results.size} bytes{how}" for results in found for how in ("", ", by CPU")), "goal"),
        [_goal(goal, found) for goal in GOALS if goal.of in chosen and goal.to in chosen],
    )


def _once(contender: Contender, address: str, name: str, results: Results) -> None:
    if contender.name in results.problems or contender.missing:
        results.fail(contender.name, contender.missing or results.problems[contender.name])
        return

    messages = max(LEAST, int(results.messages * contender.share))
    what: dict[str, Any] = {"address": address, "topic": name, "messages": messages, "size": results.size, "parts": 1}
    try:
        found = run(f"bench.compare.{contender.module}:consume", **what, **contender.arguments)
    except ChildFailed as failure:
        results.fail(contender.name, str(failure))
    else:
        results.add(contender.name, found)


def _row(contender: Contender, results: Results) -> list[str]:
    if contender.name in results.problems:
        return [contender.name, *["-"] * 4]

    rate = results.of(contender.name, "rate")
    return [
        contender.name,
        number(rate and rate / 1e3),
        number(results.of(contender.name, "cpu")),
        number(results.of(contender.name, "commits")),
        _times(results.relative(contender.name, GETMANY.name)),
    ]


def _goal(goal: Goal, found: Sequence[Results]) -> list[str]:
    names = (goal.of.name, goal.to.name)
    reached = [ratio for one in found for ratio in (one.relative(*names), one.relative_by_cpu(*names))]
    missed = [value is not None and value < goal.at_least for value in reached]
    cells = [f"**{_times(value)}**" if bold else _times(value) for value, bold in zip(reached, missed, strict=True)]
    return [" / ".join(names), *cells, f">= {goal.at_least:g}"]


def _times(relative: float | None) -> str:
    return "-" if relative is None else f"{number(relative)} x"
