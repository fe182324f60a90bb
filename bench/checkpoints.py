"""What is written beside a position: its bytes, and the time to write and to read it, for the gaps that occur.

The window is everything between the watermark and the newest message. "fits into 3,072 bytes" is how much of what is
settled above the watermark a Kafka broker has room for; what does not fit is handled again after a crash.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Iterator
from time import perf_counter

from bench.tables import machine, median, number, show
from rustmq_sdk._core.checkpoint import Remembered, decode, encode

WATERMARK = 10_000_000
KAFKA_ROOM = 3_072
ATTEMPTS = 100
"""Nacked messages whose attempts are remembered, in the case that has some."""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--windows", type=int, nargs="+", default=[1_000, 100_000], help="messages")
    parser.add_argument("--rounds", type=int, default=7, help="the table has the medians")


def main(options: argparse.Namespace) -> None:
    for window in options.windows:
        rows = [_row(name, _remembered(settled, window), options.rounds) for name, settled in CASES.items()]
        nacked = _remembered(_every(window // ATTEMPTS), window)
        nacked.attempts = dict.fromkeys(range(WATERMARK, WATERMARK + window, window // ATTEMPTS), 2)
        rows.append(_row(f"{ATTEMPTS} nacked, with their attempts", nacked, options.rounds))
        header = ("unsettled above the watermark", "runs", "bytes", "us to write", "us to read")
        show(
            f"{window:,} messages above the watermark, medians of {options.rounds}. {machine()}",
            (*header, f"fits into {KAFKA_ROOM:,} bytes"),
            rows,
        )


def _every(step: int) -> Callable[[int], bool]:
    return lambda n: n % step != 0


def _random(share: float) -> Callable[[int], bool]:
    rng = random.Random(1)
    return lambda _: rng.random() >= share


CASES: dict[str, Callable[[int], bool]] = {
    "only the first": bool,
    "every 100th": _every(100),
    "every 10th": _every(10),
    "every 2nd": _every(2),
    "1 % at random": _random(0.01),
    "10 % at random": _random(0.1),
    "50 % at random": _random(0.5),
    "90 % at random": _random(0.9),
}
"""Whether the n-th message above the watermark is settled; the watermark itself never is."""


def _remembered(settled: Callable[[int], bool], window: int) -> Remembered:
    def runs() -> Iterator[tuple[int, int]]:
        first: int | None = None
        for place in range(1, window + 1):
            known = place < window and settled(place)
            if known and first is None:
                first = place
            elif not known and first is not None:
                yield WATERMARK + first, WATERMARK + place
                first = None

    return Remembered(list(runs()))


def _row(name: str, remembered: Remembered, rounds: int) -> list[str]:
    extra, _ = encode(WATERMARK, remembered, None)
    assert decode(WATERMARK, extra).settled == remembered.settled
    written = median(_time(lambda: encode(WATERMARK, remembered, None)) for _ in range(rounds))
    read = median(_time(lambda: decode(WATERMARK, extra)) for _ in range(rounds))
    _, covered = encode(WATERMARK, remembered, KAFKA_ROOM)
    everything = sum(end - first for first, end in remembered.settled)
    fits = sum(min(end, covered) - first for first, end in remembered.settled if first < covered)
    runs = f"{len(remembered.settled):,}"
    return [name, runs, f"{len(extra):,}", number(written), number(read), f"{fits / everything:.0%}"]


def _time(function: Callable[[], object]) -> float:
    """Microseconds of one call."""
    began = perf_counter()
    function()
    return (perf_counter() - began) * 1e6
