"""A tour: a week of earthquakes through a log, by three processes, one of which is killed. Nothing is lost.

A producer sends the feed while two consumers of one group read it already. Look-ups fail and are retried; what is not
an earthquake goes to a dead-letter topic; half-way one consumer is killed with -9, messages in its hands, and started
again later. At the end every published event is accounted for, or the program says which are not and exits with 1.

    python examples/demo.py                        about fifteen seconds, on a file in a temporary folder
    python examples/demo.py --backend trio         the same on trio
    python examples/demo.py --url sqlite:///x.db   the same on another log

The interesting parts are short: demo_parts/producer.py, demo_parts/consumer.py and its handler, demo_parts/alarm.py.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import anyio

import rustmq_sdk
from demo_parts.child import UnexpectedEnd
from demo_parts.consumer import consume
from demo_parts.journal import Journal
from demo_parts.producer import produce
from demo_parts.tally import table, verdict
from demo_parts.tour import Tour

ON_PURPOSE = ("handler_failed", "dead_lettered")


async def tour(chosen: argparse.Namespace) -> int:
    """The parent: starts the other roles as processes, and accounts for what they did."""
    print(f"A week of earthquakes, through {chosen.url or 'the embedded log'}, on {chosen.backend}.")
    with tempfile.TemporaryDirectory(prefix="rustmq-demo-") as folder:
        url = chosen.url or f"sqlite:///{folder}/demo.db"
        start = anyio.current_time()
        run = Tour(url, [__file__, "--backend", chosen.backend], Path(folder), seconds=chosen.seconds)
        lag = await run.run()
        print(f"\n{table(run.tally, lag=lag, seconds=anyio.current_time() - start)}")

    if chosen.url and not chosen.temporary:
        print(f"\nThe topics {run.topic} and {run.topic}.dead are left there, to look at.")

    return verdict(run.tally, lag)


async def work(chosen: argparse.Namespace) -> int:
    """A child: one role of the tour."""
    with closing(Journal(chosen.journal)) as journal:
        if chosen.role == "producer":
            await produce(chosen.url, chosen.topic, journal, seconds=chosen.seconds)
        else:
            await consume(chosen.url, chosen.topic, journal)

    return 0


def main(program: Callable[[], Awaitable[int]], *, title: str, backend: str) -> int:
    """Runs it; what ends it before its time is explained, not dumped."""
    status = 2
    try:
        status = anyio.run(program, backend=backend)
    except* (rustmq_sdk.RustMQError, TimeoutError, UnexpectedEnd) as errors:
        for error in leaves(errors):
            print(f"\nThe {title} cannot go on. {error}", file=sys.stderr)
    except* KeyboardInterrupt:
        print("\nInterrupted before its end.", file=sys.stderr)
        status = 130
    except* BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads any more, as with `| head`
        status = 141

    return status


def leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from leaves(error)
        else:
            yield error


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A week of earthquakes through a log, and nothing lost.")
    parser.add_argument("--backend", choices=("asyncio", "trio"), default="asyncio", help="which event loop")
    parser.add_argument("--url", help="another log than a file in a temporary folder")
    parser.add_argument("--temporary", action="store_true", help="the log that --url names ends with the tour")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long the feed takes (default: %(default)s)")
    roles = parser.add_argument_group("what the tour starts its processes with")
    roles.add_argument("--role", choices=("tour", "producer", "consumer"), default="tour")
    roles.add_argument("--name", default="", help="of a consumer")
    roles.add_argument("--topic")
    roles.add_argument("--journal", type=Path, help="the file where it notes what happens")
    chosen = parser.parse_args()
    if chosen.url and urlsplit(chosen.url).scheme == "memory":
        parser.error("memory:// lives in one process, and the tour runs several. Name a log that they can share")

    if not 0 < chosen.seconds < math.inf:
        parser.error(f"--seconds {chosen.seconds}: expected a positive number")

    if chosen.role != "tour" and None in {chosen.url, chosen.topic, chosen.journal}:
        parser.error(f"--role {chosen.role} needs --url, --topic and --journal")

    return chosen


def start(chosen: argparse.Namespace) -> int:
    # What happens on purpose is counted by the tour; whatever else the package logs shall be seen.
    logging.getLogger("rustmq_sdk").addFilter(lambda record: getattr(record, "event", None) not in ON_PURPOSE)
    if chosen.role != "tour":
        return main(partial(work, chosen), title=f"{chosen.role} {chosen.name}".strip(), backend=chosen.backend)

    # To be asked to end is Ctrl-C as well, also where a script has started us to ignore that in the background: the
    # processes end, the folder is removed.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    return main(partial(tour, chosen), title="tour", backend=chosen.backend)


if __name__ == "__main__":
    sys.exit(start(arguments()))
