"""What a message costs through receive() and ack() when the same messages lie in 1, 4, 16, 100 or 1,000 partitions.

They lie there in batches of 100 that went to the partitions in turn. The clock runs from the first message received
to the last one acked; "joined after" is the time before that. "CPU" is processor time of all threads: others on the
machine disturb it less.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from bench.children import ChildFailed, run
from bench.tables import machine, median, number, progress, ratio, show

COUNTS = (1, 4, 16, 100, 1_000)
DRIVERS = ("memory", "sqlite")
GOALS = {100: 1.3, 1_000: 2.0}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--counts", type=int, nargs="+", default=list(COUNTS), help="of partitions")
    parser.add_argument("--messages", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3, help="interleaved; the table has the medians")
    parser.add_argument("--loop", choices=("asyncio", "trio"), default="asyncio")
    parser.add_argument("--drivers", nargs="+", choices=DRIVERS, default=list(DRIVERS))


def main(options: argparse.Namespace) -> None:
    runs: dict[tuple[str, int], list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-partitions-") as folder:
        for turn in range(options.rounds):
            for driver in options.drivers:
                for count in options.counts:
                    progress(f"partitions: round {turn + 1} of {options.rounds}, {driver}, {count:,}")
                    runs.setdefault((driver, count), []).append(_once(folder, driver, count, options))

    for driver in options.drivers:
        base = runs[driver, options.counts[0]]
        show(
            f"{driver}://, {options.messages:,} messages of 100 bytes, {options.loop}, medians of {options.rounds}. "
            f"{machine()}",
            ("partitions", "ns a message", "relative", "goal", "CPU ns", "relative", "joined after, ms"),
            [_row(count, runs[driver, count], base) for count in options.counts],
        )


def _row(count: int, runs: list[dict[str, float]], base: list[dict[str, float]]) -> list[str]:
    def of(found: list[dict[str, float]], key: str) -> float | None:
        return median(run.get(key) for run in found)

    took, first = of(runs, "ns"), of(base, "ns")
    goal = f"<= {GOALS[count]} x" if count in GOALS else ""
    if goal and took and first and took / first > GOALS[count]:
        goal += ", **not reached**"

    cpu = of(runs, "cpu")
    wall = [number(took), ratio(took, first), goal]
    return [f"{count:,}", *wall, number(cpu), ratio(cpu, of(base, "cpu")), number(of(runs, "joined"))]


def _once(folder: str, driver: str, count: int, options: argparse.Namespace) -> dict[str, float]:
    file = Path(folder) / f"{count}.db"
    url = f"sqlite:///{file}" if driver == "sqlite" else "memory://bench"
    fill = driver == "memory" or not file.exists()
    what = {"partitions": count, "messages": options.messages, "loop": options.loop, "fill": fill}
    found: dict[str, Any] = {}
    try:
        found = run("bench.partitions_run:measure", url=url, **what)
    except ChildFailed as failure:
        progress(str(failure))

    return found
