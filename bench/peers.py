"""The same work by this project's embedded log and by other queues, on this machine, in one run.

Messages of 100 bytes are sent and made durable, one at a time and in groups of 500 where that is possible; then they
are received and acked, each ack on the disk before the next message, and in groups. Every step of everybody is a
process of its own; rounds are interleaved. Redis and NATS are started for it; where one is missing, its row says so.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, TypeAlias

from bench.children import ChildFailed, run
from bench.contenders import CONTENDERS, GROUP, Contender
from bench.tables import machine, median, number, progress, ratio, show
from tests.services.catalogue import CATALOGUE
from tests.services.checkout import Checkout
from tests.services.holding import Holding
from tests.services.service import ServiceFailed

MESSAGES = 2_000
IN_GROUPS = 20
"""How many times as many in groups, or the times would be too short to measure."""


class Step(NamedTuple):
    """One column of the table."""

    verb: str
    group: int


Times: TypeAlias = "dict[tuple[Contender, Step], list[float]]"
"""Seconds a message, of each round."""

STEPS = (Step("produce", 1), Step("produce", GROUP), Step("consume", 1), Step("consume", GROUP))


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--messages", type=int, default=MESSAGES, help=f"one at a time; in groups {IN_GROUPS} times as many"
    )
    parser.add_argument("--rounds", type=int, default=3, help="interleaved; the table has the medians")
    parser.add_argument(
        "--only", nargs="+", metavar="WORD", help="contenders whose names have one of these words in it"
    )


def main(options: argparse.Namespace) -> None:
    chosen = [one for one in CONTENDERS if not options.only or any(word in one.name for word in options.only)]
    times: Times = {}
    problems: dict[Contender, str] = {}
    with tempfile.TemporaryDirectory(prefix="bench-peers-") as folder, _servers(folder, chosen, problems) as places:
        for turn in range(options.rounds):
            for contender in [one for one in chosen if one not in problems]:
                progress(f"peers: round {turn + 1} of {options.rounds}, {contender.name}")
                try:
                    _round(contender, places.get(contender.service or ""), options.messages, times)
                except ChildFailed as failure:
                    problems[contender] = str(failure)

    _print(chosen, times, problems, options)


def _round(contender: Contender, server: str | None, messages: int, times: Times) -> None:
    """What is appended one at a time is received one at a time, and what is appended in groups in groups."""
    for group in contender.produces:
        count = messages if group == 1 else messages * IN_GROUPS
        with tempfile.TemporaryDirectory(prefix="bench-contender-") as folder:
            for step in [Step("produce", group), Step("consume", group)]:
                if group in getattr(contender, f"{step.verb}s"):
                    place = server or folder
                    function = f"bench.contenders.{contender.module}:{step.verb}"
                    took = run(function, place=place, messages=count, group=group)
                    times.setdefault((contender, step), []).append(took / count)


@contextmanager
def _servers(folder: str, chosen: list[Contender], problems: dict[Contender, str]) -> Iterator[dict[str, str]]:
    """The URLs of those servers that are to be had, of our own and on data of our own, stopped afterwards."""
    os.environ["SERVICES_FOLDER"] = folder
    holdings = {one: Holding(one.service) for one in chosen if one.service}
    try:
        places: dict[str, str] = {}
        for contender, holding in holdings.items():
            try:
                holding.wait()
                places[holding.name] = _url(holding.name)
            except ServiceFailed as failure:
                problems[contender] = str(failure)

        yield places
    finally:
        for holding in holdings.values():
            holding.let_go()

        for holding in holdings.values():
            holding.close()


def _url(service: str) -> str:
    site = Checkout().site(CATALOGUE[service])
    assert site is not None, service
    (url,) = CATALOGUE[service].variables(site).values()
    return url


def _print(chosen: list[Contender], times: Times, problems: dict[Contender, str], options: argparse.Namespace) -> None:
    show(
        f"Microseconds a message of 100 bytes, medians of {options.rounds} rounds, {options.messages:,} one at a "
        f"time, {options.messages * IN_GROUPS:,} in groups. {machine()}",
        ("", *(f"{step.verb}, {_how(step)}" for step in STEPS)),
        [_row(one, times, problems) for one in chosen],
    )
    show("Relative to the first row", ("", *(f"{step.verb}, {_how(step)}" for step in STEPS)), _ratios(chosen, times))
    for one in chosen:
        if one.note:
            print(f"\n{one.name}: {one.note}.")


def _how(step: Step) -> str:
    if step.verb == "produce":
        return "one at a time" if step.group == 1 else f"{step.group} at a time"

    return "each ack awaited" if step.group == 1 else "acks in groups"


def _row(contender: Contender, times: Times, problems: dict[Contender, str]) -> list[str]:
    if contender in problems:
        return [contender.name, problems[contender], "", "", ""]

    found = [median(times.get((contender, step), ())) for step in STEPS]
    return [contender.name, *(number(took and took * 1e6) for took in found)]


def _ratios(chosen: list[Contender], times: Times) -> Iterator[list[str]]:
    def took(contender: Contender, step: Step) -> float | None:
        return median(times.get((contender, step), ()))

    for one in chosen:
        yield [one.name, *(ratio(took(one, step), took(chosen[0], step)) for step in STEPS)]
