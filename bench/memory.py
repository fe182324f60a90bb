"""Whether memory stays flat: resident bytes of a process that sends and receives a million messages (--long: ten).

One process, the embedded log with retention, so that the file stays small as well. Each phase sends what it receives
and does something else with it. "growth" compares the last fifth of a phase's samples with the second fifth: the first
fills caches and buffers, which is no growth.
"""

from __future__ import annotations

import argparse
from typing import Any

from bench.children import run
from bench.tables import machine, median, number, show

PHASES = ("in order", "acked at random", "every 100th nacked", "run() in key order", "in batches")
LONG = 10_000_000
SHORT = 1_000_000


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--messages", type=int, default=SHORT, help="of all phases together")
    parser.add_argument("--long", action="store_const", dest="messages", const=LONG, help=f"{LONG:,} messages")
    parser.add_argument("--loop", choices=("asyncio", "trio"), default="asyncio")


def main(options: argparse.Namespace) -> None:
    each = options.messages // len(PHASES)
    phases: dict[str, Any] = run(
        "bench.memory_phases:measure", timeout=36_000, loop=options.loop, each=each, phases=PHASES
    )
    rows = [_row(name, each, found) for name, found in phases.items()]
    everything = [sample for found in phases.values() for sample in found["samples"]]
    late, early = everything[-1], phases[PHASES[0]]["samples"][-1]
    rows.append(["all, end against end of the first", f"{each * len(PHASES):,}", "", mib(early), mib(late), ""])
    rows[-1] += [mib(max(everything)), mib(late - early)]
    show(
        f"Resident memory, MiB, {options.loop}. {machine()}",
        ("phase", "messages", "k msg/s", "early", "late", "growth %", "peak", "growth"),
        rows,
    )


def _row(name: str, messages: int, found: dict[str, Any]) -> list[str]:
    samples = found["samples"]
    fifth = max(1, len(samples) // 5)
    early, late = median(samples[fifth : 2 * fifth] or samples), median(samples[-fifth:])
    assert early is not None
    assert late is not None
    growth = f"{(late - early) / early * 100:+.1f}"
    rate = number(messages / found["seconds"] / 1e3)
    return [name, f"{messages:,}", rate, mib(early), mib(late), growth, mib(max(samples)), mib(late - early)]


def mib(size: float) -> str:
    return f"{size / 2**20:.1f}"
