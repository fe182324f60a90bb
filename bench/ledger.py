"""The bookkeeping alone, without a loop, a driver or a task: a delivery and an ack while 1, 1,000 or 100,000 are open.

"delivery": what a message costs from the fetched piece to the hand that gets it: taken in by the ledger, put into the
buffer, built there, popped. "ack": the state byte, and for the few that are watched the counting. In pieces of 500, or
of the window where that is smaller: with one open at a time each message is a piece. "snapshot" is
what the ack-handler pays for one look at such a ledger.
"""

from __future__ import annotations

import argparse

from bench.children import run
from bench.tables import machine, median, number, progress, show

WINDOWS = (1, 1_000, 100_000)
ORDERS = ("in order", "at random")


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--windows", type=int, nargs="+", default=list(WINDOWS), help="messages open at a time")
    parser.add_argument("--messages", type=int, default=500_000)
    parser.add_argument("--rounds", type=int, default=5, help="interleaved; the table has the medians")


def main(options: argparse.Namespace) -> None:
    runs: dict[tuple[int, str], list[dict[str, float]]] = {}
    for turn in range(options.rounds):
        progress(f"ledger: round {turn + 1} of {options.rounds}")
        for window in options.windows:
            for order in ORDERS if window > 1 else ORDERS[:1]:
                found = run("bench.ledger_run:measure", window=window, order=order, messages=options.messages)
                runs.setdefault((window, order), []).append(found)

    def cells(found: list[dict[str, float]]) -> list[str]:
        return [number(median(one[key] for one in found)) for key in ("delivery", "ack", "snapshot")]

    show(
        f"The ledger, medians of {options.rounds} runs of {options.messages:,} messages. {machine()}",
        ("open", "acked", "ns a delivery", "ns an ack", "us a snapshot, half of them settled"),
        [[f"{window:,}", order, *cells(found)] for (window, order), found in runs.items()],
    )
