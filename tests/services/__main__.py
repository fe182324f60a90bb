"""The command line: ``scripts/services``."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType

from tests.services import control, status
from tests.services.catalogue import CATALOGUE, nodes, services
from tests.services.checkout import Checkout
from tests.services.service import ServiceFailed, ServiceMissing

FAILED, MISSING, INTERRUPTED = 1, 3, 130

EPILOG = """\
examples:
  scripts/services up                  Kafka, one node and three, for the tests; does nothing where they run
  scripts/services up redis            one of the others
  scripts/services kill kafka-2        kill -9, as a test of failures would
  scripts/services restart kafka-2     the same ports, the same data
  eval "$(scripts/services env)"       KAFKA_BOOTSTRAP and the like, for programs of your own
  scripts/services down                nothing is left running, no data are left; logs stay in .services/logs

Exit status: 0 done, 1 failed, 2 misused, 3 something is not installed and takes a password to install.
"""


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; its exit status."""
    parsed = _parser().parse_args(arguments)
    # Ended by whoever started it, it cleans up as it does on Ctrl-C.
    signal.signal(signal.SIGTERM, _leave)
    try:
        command: Callable[[Checkout, list[str]], None] = parsed.run
        command(Checkout(), getattr(parsed, "names", []))
    except ServiceMissing as missing:
        return _sorry(missing, MISSING)
    except ServiceFailed as failure:
        return _sorry(failure, FAILED)
    except KeyboardInterrupt:
        return _sorry("interrupted; what was being started has been stopped", INTERRUPTED)

    return 0


def up(checkout: Checkout, names: list[str]) -> None:
    """Starts services and waits until they serve."""
    for service in services(names or _defaults()):
        began = time.monotonic()
        site = control.up(checkout, service, keep=True, install=True, say=_say)
        addresses = ",".join(site.address(node, service.listeners[0]) for node in service.nodes)
        _print(f"{service.name} is up: {addresses} ({time.monotonic() - began:.1f} s)")


def down(checkout: Checkout, names: list[str]) -> None:
    """Stops services and throws their data away."""
    for service in services(names or CATALOGUE):
        if control.down(checkout, service):
            _print(f"{service.name} is down")
        elif names:
            _print(f"{service.name} was down already")


def install(checkout: Checkout, names: list[str]) -> None:
    """Brings what services are made of, and starts nothing."""
    for service in services(names or _defaults()):
        control.provide(checkout, service, install=True, say=_say)
        _print(f"{service.name} can be started")


def show(checkout: Checkout, names: list[str]) -> None:
    """Prints the table."""
    for line in status.table(checkout):
        _print(line)


def env(checkout: Checkout, names: list[str]) -> None:
    """Prints lines for a shell."""
    for line in status.exports(checkout):
        _print(line)


def restart(checkout: Checkout, names: list[str]) -> None:
    """Restarts nodes, one after the other."""
    for service, node in nodes(names):
        control.restart(checkout, service, node)
        _print(f"{node} is up again")


def kill(checkout: Checkout, names: list[str]) -> None:
    """Kills nodes."""
    for service, node in nodes(names):
        _print(f"{node} is killed" if control.kill(checkout, service, node) else f"{node} did not run")


def hold(checkout: Checkout, names: list[str]) -> None:
    """Keeps one service up until standard input ends."""
    (service,) = services(names)
    with control.hold(checkout, service, say=lambda line: None):
        _print("ready")
        sys.stdin.read()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/services",
        description="Real servers for the tests, in .services of this checkout, on ports of their own.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(run: Callable[[Checkout, list[str]], None], name: str, text: str, count: str | int | None = None) -> None:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        if count is not None:
            command.add_argument("names", nargs=count, metavar="NAME", help=", ".join(CATALOGUE))

    add(up, "up", f"start services ({' and '.join(_defaults())} if none is named) and wait until they serve", "*")
    add(down, "down", "stop services (all if none is named) and throw their data away", "*")
    add(show, "status", "what runs, and where")
    add(restart, "restart", "end nodes, if they run, and start them on the same ports and data", "+")
    add(kill, "kill", "kill -9 nodes", "+")
    add(env, "env", "what a program has to know to use what runs, as lines for a shell")
    add(install, "install", "bring what services are made of, and start nothing", "*")
    add(hold, "hold", "keep a service up until standard input ends, as the tests do", 1)
    return parser


def _defaults() -> list[str]:
    return [name for name, service in CATALOGUE.items() if service.by_default]


def _leave(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + signum)


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _sorry(problem: object, status: int) -> int:
    sys.stderr.write(f"{problem}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
