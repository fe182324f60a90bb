"""Where the time of one message goes, from the log to ack(): 100 bytes, four partitions, batches of 500.

Each part is a function that runs once a piece or less often, and is timed by the processor time of its thread, without
what it calls of the other parts. receive() and ack() are timed in runs of 50 among which nothing else happened. What is
left of the process's time are turns of the event loop, task switches and crossings to threads.

--kafka adds a Kafka that is started for it (see `compare`); --url kafka://… one that runs already.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeAlias

from bench.children import run
from bench.compare.server import server, topic
from bench.tables import machine, median, number, progress, show

Log: TypeAlias = "Callable[[], dict[str, Any]]"
"""Where the next round reads, and whether it has to be filled."""
SUMS = 3
"""The last rows: what is left, and the whole twice."""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--messages", type=int, default=300_000)
    parser.add_argument("--rounds", type=int, default=5, help="interleaved; the table has the medians")
    parser.add_argument("--loop", choices=("asyncio", "trio"), default="asyncio")
    parser.add_argument("--kafka", action="store_true", help="take a message of Kafka apart as well")
    parser.add_argument("--url", help="kafka://host:port of a server that runs already")


def main(options: argparse.Namespace) -> None:
    runs: dict[str, list[dict[str, float]]] = {}
    with ExitStack() as stack:
        logs = [_memory, _sqlite(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-parts-")))]
        if options.kafka or options.url:
            address = stack.enter_context(server(options.url))
            logs.append(_kafka(address, stack.enter_context(topic(address, options.messages, 100))))

        for turn in range(options.rounds):
            for log in logs:
                where = log()
                driver = where["url"].partition("://")[0]
                progress(f"parts: round {turn + 1} of {options.rounds}, {driver}")
                found = run("bench.parts_run:measure", messages=options.messages, loop=options.loop, **where)
                runs.setdefault(driver, []).append(found)

    every = [list(found[0]) for found in runs.values()]
    parts = dict.fromkeys(name for names in every for name in names[:-SUMS])
    show(
        f"Nanoseconds a message, {options.loop}, medians of {options.rounds} runs of {options.messages:,}. {machine()}",
        ("", *(f"{driver}://" for driver in runs)),
        [
            [name, *(number(median(one.get(name) for one in found)) for found in runs.values())]
            for name in (*parts, *every[0][-SUMS:])
        ],
    )


def _memory() -> dict[str, Any]:
    return {"url": "memory://bench", "fill": True}


def _sqlite(folder: str) -> Log:
    file = Path(folder) / "log.db"
    return lambda: {"url": f"sqlite:///{file}", "fill": not file.exists()}


def _kafka(address: str, name: str) -> Log:
    return lambda: {"url": f"kafka://{address}", "topic": name, "fill": False}
