"""``scripts/bench COMMAND``: what takes more than a loop of calls to measure."""

from __future__ import annotations

import argparse
import importlib
import sys

COMMANDS = {
    "latency": "from send to receive, in one process and between two, at three rates",
    "memory": "whether it stays flat over a million messages, or ten",
    "partitions": "the cost of a message over 1 to 1,000 partitions",
    "ledger": "the bookkeeping alone: a delivery and an ack at windows of 1, 1,000 and 100,000",
    "checkpoints": "bytes and time of what is written beside a position",
    "parts": "where the time of one message goes",
    "peers": "the same work by other queues on this machine",
    "compare": "the same work by other clients of Kafka on this machine",
}


def main(arguments: list[str] | None = None) -> int:
    """Runs one measurement, or all of them in their short form; the exit status."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measures. Without a command, or with pytest's arguments: the tables of pytest-benchmark.",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND", dest="command")
    for name, text in COMMANDS.items():
        module = importlib.import_module(f"bench.{name}")
        command = commands.add_parser(
            name, help=text, description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        module.add_options(command)
        command.set_defaults(run=module.main)

    commands.add_parser("all", help="each of these in its short form")
    parsed = parser.parse_args(arguments)
    if parsed.command == "all":
        return max(main([name]) for name in COMMANDS)

    parsed.run(parsed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
