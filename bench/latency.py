"""From the call of send() to the return of receive(): the embedded log, in one process and between two.

Each message carries the time of its sending on the system's monotonic clock, which is one for all processes of a
machine. Senders keep to a timetable, whatever the log does; up to 1,000 a second each message is a send() of its own
task, above that a send_nowait() with linger=0. "send" is how long send() itself took: until the message was on the
disk; beside it what one INSERT and COMMIT by hand takes at the same pace. The first half second of each run does not
count.

Between processes, "told" is how the log works by default (inotify or kqueue where there is one), "polling" is the
fallback (wake=poll in the URL).
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from bench.children import Child, run
from bench.latency_ends import ONE_BY_ONE
from bench.tables import machine, median, number, progress, show

RATES = (100, 1_000, 20_000)


class Way(NamedTuple):
    """How messages go from one to the other."""

    name: str
    loop: str
    processes: int
    wake: str


BY_HAND = Way("INSERT and COMMIT by hand", "", 0, "")
WAYS = (
    Way("one process, asyncio", "asyncio", 1, "auto"),
    Way("one process, trio", "trio", 1, "auto"),
    Way("two processes, told", "asyncio", 2, "auto"),
    Way("two processes, polling", "asyncio", 2, "poll"),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rates", type=int, nargs="+", default=list(RATES), help="messages a second")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one run")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each; the table has their medians")
    parser.add_argument("--sync", choices=("full", "normal"), default="full", help="as in the URL of the log")


def main(options: argparse.Namespace) -> None:
    measured: dict[tuple[Way, int], list[dict[str, float]]] = {}
    for turn in range(options.rounds):
        for rate in options.rates:
            for way in (BY_HAND, *WAYS) if rate <= ONE_BY_ONE else WAYS:
                progress(f"latency: round {turn + 1} of {options.rounds}, {way.name}, {rate:,} a second")
                measured.setdefault((way, rate), []).append(_once(way, rate, options.seconds, options.sync))

    show(
        f"Milliseconds from send to receive, sync={options.sync}, medians of {options.rounds} runs of "
        f"{options.seconds:g} s, the maximum of all. {machine()}",
        ("", "a second", "reached", "p50", "p99", "max", "send p50", "send p99"),
        [_row(way, rate, runs) for (way, rate), runs in measured.items()],
    )


def _row(way: Way, rate: int, runs: list[dict[str, float]]) -> list[str]:
    def of(key: str) -> float | None:
        return median(run.get(key) for run in runs)

    worst = max((run["max"] for run in runs if "max" in run), default=None)
    cells = [of("rate"), of("p50"), of("p99"), worst, of("send p50"), of("send p99")]
    return [way.name, f"{rate:,}", *map(number, cells)]


def _once(way: Way, rate: int, seconds: float, sync: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="bench-latency-") as folder:
        timing = {"rate": rate, "seconds": seconds}
        if way is BY_HAND:
            return _numbers(run("bench.latency_ends:by_hand", folder=folder, sync=sync, **timing))

        url = f"sqlite:///{Path(folder) / 'log.db'}?sync={sync}&wake={way.wake}"
        if way.processes == 1:
            return _numbers(run("bench.latency_ends:both", url=url, loop=way.loop, **timing))

        return _numbers(_between_two(url, way.loop, timing))


def _between_two(url: str, loop: str, timing: dict[str, float]) -> dict[str, Any]:
    receiver = Child("bench.latency_ends:receiver", url=url, loop=loop, **timing)
    sender = None
    try:
        assert receiver.line() == "ready"
        sender = Child("bench.latency_ends:sender", url=url, loop=loop, **timing)
        patience = timing["seconds"] + 60
        found = {**sender.result(timeout=patience), **receiver.result(timeout=patience)}
    except BaseException:
        receiver.end()
        if sender is not None:
            sender.end()

        raise

    return found


def _numbers(found: dict[str, Any]) -> dict[str, float]:
    return {key: float(value) for key, value in found.items()}
