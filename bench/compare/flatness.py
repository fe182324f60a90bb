"""Whether their memory stays flat."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from bench.children import ChildFailed, run
from bench.compare.contenders import Contender
from bench.compare.server import more, topic
from bench.memory import mib
from bench.tables import machine, median, number, progress, show

PARTS = 100
"""After each, memory is looked at. The first fifth fills caches and buffers, which is no growth."""


def main(options: argparse.Namespace, chosen: Sequence[Contender], address: str) -> None:
    size = options.sizes[0]
    rows = []
    with topic(address, options.messages + more(size), size) as name:
        for contender in [one for one in chosen if one.long]:
            progress(f"compare: memory, {contender.name}")
            what = {"address": address, "topic": name, "messages": options.messages, "size": size, "parts": PARTS}
            try:
                found = run(f"bench.compare.{contender.module}:consume", timeout=3600, **what, **contender.arguments)
            except ChildFailed as failure:
                rows.append([contender.name, contender.missing or str(failure), "", "", "", ""])
            else:
                rows.append(_row(contender, found))

    show(
        f"Resident MiB over {options.messages:,} messages of {size} bytes. {machine()}",
        ("", "k msg/s", "early", "late", "growth %", "peak"),
        rows,
    )


def _row(contender: Contender, found: dict[str, Any]) -> list[str]:
    samples = found["samples"]
    fifth = len(samples) // 5
    early, late = median(samples[fifth : 2 * fifth]), median(samples[-fifth:])
    assert early is not None
    assert late is not None
    growth = f"{(late - early) / early * 100:+.1f}"
    return [contender.name, number(found["rate"] / 1e3), mib(early), mib(late), growth, mib(max(samples))]
