"""Where the time of one message goes, from the log to ack(): 100 bytes, four partitions, batches of 500.

Each part is a function that runs once a piece or less often, and is timed by the processor time of its thread, without
what it calls of the other parts. receive() and ack() are timed in runs of 50 among which nothing else happened. What is
left of the process's time are turns of the event loop, task switches and crossings to threads.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from bench.children import run
from bench.tables import machine, median, number, progress, show

DRIVERS = ("memory", "sqlite")


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--messages", type=int, default=300_000)
    parser.add_argument("--rounds", type=int, default=5, help="interleaved; the table has the medians")
    parser.add_argument("--loop", choices=("asyncio", "trio"), default="asyncio")


def main(options: argparse.Namespace) -> None:
    runs: dict[str, list[dict[str, float]]] = {driver: [] for driver in DRIVERS}
    with tempfile.TemporaryDirectory(prefix="bench-parts-") as folder:
        for turn in range(options.rounds):
            for driver in DRIVERS:
                progress(f"parts: round {turn + 1} of {options.rounds}, {driver}")
                file = Path(folder) / "log.db"
                url = f"sqlite:///{file}" if driver == "sqlite" else "memory://bench"
                fill = driver == "memory" or not file.exists()
                what = {"url": url, "messages": options.messages, "loop": options.loop, "fill": fill}
                runs[driver].append(run("bench.parts_run:measure", **what))

    # sqlite:// has every part, in order.
    names = list(runs["sqlite"][0])
    show(
        f"Nanoseconds a message, {options.loop}, medians of {options.rounds} runs of {options.messages:,}. {machine()}",
        ("", *(f"{driver}://" for driver in DRIVERS)),
        [[name, *(number(median(one.get(name) for one in runs[driver])) for driver in DRIVERS)] for name in names],
    )
