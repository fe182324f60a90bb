"""The same work by other clients of Kafka, on this machine, in one run.

A topic of four partitions is filled before. Every contender reads it in a process of its own, as a group of its own;
rounds are interleaved, and a ratio is the median of the ratios of each round. The clock begins with the first message
(joining the group is not measured) and ends when all are handled and committed; each message's body is looked at.

A Kafka is started for it, with data of its own in SERVICES_FOLDER, unless --url names one. A client that is not
installed is a row that says so.

--latency measures the time from send() to receive instead, --memory resident bytes over many messages.
"""

from __future__ import annotations

import argparse
import re

from bench.compare import flatness, latencies, throughput
from bench.compare.contenders import CONTENDERS
from bench.compare.server import server

MESSAGES = 400_000
LONG = 5_000_000


def add_options(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--latency", action="store_true", help="from send to receive, at --rates")
    what.add_argument("--memory", action="store_true", help=f"over --messages of them; --long: {LONG:,}")
    parser.add_argument("--url", help="kafka://host:port of a server that runs already")
    parser.add_argument("--messages", type=int, default=MESSAGES, help="of 100 bytes, and half as many of 1 KiB")
    parser.add_argument("--long", action="store_const", dest="messages", const=LONG, help=f"{LONG:,} messages")
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1024], help="bytes of a message")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved; the tables have the medians")
    parser.add_argument("--rates", type=int, nargs="+", default=[1_000, 20_000], help="messages a second")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of one run of --latency")
    parser.add_argument("--only", nargs="+", metavar="PATTERN", help="contenders in whose names one of these is found")


def main(options: argparse.Namespace) -> None:
    patterns = options.only or [""]
    chosen = [one for one in CONTENDERS if any(re.search(pattern, one.name) for pattern in patterns)]
    with server(options.url) as address:
        if options.latency:
            latencies.main(options, chosen, address)
        elif options.memory:
            flatness.main(options, chosen, address)
        else:
            throughput.main(options, chosen, address)
