"""Tables of medians, and what has to stand above them: which machine, when, how busy."""

from __future__ import annotations

import datetime as dt
import math
import os
import platform
import statistics
import sys
from collections.abc import Iterable, Sequence


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least so many percent of all do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def median(values: Iterable[float | None]) -> float | None:
    """Of those that were measured; None if none was."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def number(value: float | None) -> str:
    """Three digits that matter, in thousands; a dash for what was not measured."""
    if value is None:
        return "-"

    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"

    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def ratio(value: float | None, base: float | None) -> str:
    """``1.23 x``, or a dash."""
    return "-" if value is None or not base else f"{value / base:.2f} x"


def show(title: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Prints a table as the README has it, so that it can be copied there."""
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    print(f"\n{title}\n")
    for place, line in enumerate(lines):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |")
        if place == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")

    sys.stdout.flush()


def machine() -> str:
    """One line: processors, Python, date, and how busy the machine is."""
    now = dt.datetime.now(dt.UTC)
    load = "/".join(f"{value:.1f}" for value in os.getloadavg()) if hasattr(os, "getloadavg") else "unknown"
    python = f"{platform.python_implementation()} {platform.python_version()}"
    system = f"{platform.system()} {platform.machine()}"
    return f"{os.cpu_count()} cores, {system}, {python}, {now:%Y-%m-%d %H:%M} UTC, load {load}"


def progress(text: str) -> None:
    """What is measured now: to standard error, so that the tables can be redirected."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
