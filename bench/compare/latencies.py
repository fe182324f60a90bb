"""How soon they have what was sent."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from bench.children import Child, ChildFailed
from bench.compare.contenders import Contender
from bench.compare.race import WARM_UP
from bench.compare.server import topic
from bench.tables import machine, median, number, progress, show


def main(options: argparse.Namespace, chosen: Sequence[Contender], address: str) -> None:
    found: dict[tuple[int, str], list[dict[str, float]]] = {}
    problems: dict[tuple[int, str], str] = {}
    for turn in range(options.rounds):
        for rate in options.rates:
            for contender in [one for one in chosen if one.listens]:
                progress(f"compare: round {turn + 1} of {options.rounds}, {rate:,} a second, {contender.listens}")
                runs = found.setdefault((rate, contender.listens), [])
                try:
                    runs.append(_once(contender, address, rate, options.seconds))
                except ChildFailed as failure:
                    problems[rate, contender.listens] = str(failure)

    show(
        f"Milliseconds from send to receive, medians of {options.rounds} runs of {options.seconds:g} s of which the "
        f"first {WARM_UP:g} s do not count. {machine()}",
        ("", "a second", "p50", "p99", "max"),
        [_row(key, runs, problems.get(key, "")) for key, runs in sorted(found.items(), key=lambda one: one[0][0])],
    )


def _once(contender: Contender, address: str, rate: int, seconds: float) -> dict[str, float]:
    if contender.missing:
        raise ChildFailed(contender.missing)

    timing = {"rate": rate, "seconds": seconds}
    # One message, with which the receiver shows that it is there.
    with topic(address, 1, 100) as name:
        where = {"address": address, "topic": name}
        receiver = Child(f"bench.compare.{contender.module}:listen", **where, **timing, **contender.arguments)
        sender = None
        try:
            assert receiver.line() == "ready"
            sender = Child("bench.latency_ends:sender", url=f"kafka://{address}", loop="asyncio", topic=name, **timing)
            sender.result(timeout=seconds + 60)
            return {key: float(value) for key, value in receiver.result(timeout=60).items()}
        except BaseException:
            receiver.end()
            if sender is not None:
                sender.end()

            raise


def _row(key: tuple[int, str], runs: Sequence[dict[str, float]], problem: str) -> list[str]:
    rate, name = key
    if not runs:
        return [name, f"{rate:,}", problem, "", ""]

    p50, p99 = (median(run[percent] for run in runs) for percent in ("p50", "p99"))
    return [name, f"{rate:,}", number(p50), number(p99), number(max(run["max"] for run in runs))]
