"""The long form: python -m tests.kills --help."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from itertools import count
from pathlib import Path

from rustmq_sdk.drivers.sqlite import integrity_check
from tests.kills.conductor import Conductor, Plan
from tests.kills.crashing import sweep
from tests.kills.telling import say, say_account


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.kills",
        description="Kills producers and consumers at random and accounts for every message.",
    )
    parser.add_argument("--url", help="of a server, as kafka://HOST:PORT (default: a log of its own, in a file)")
    parser.add_argument("--kills", type=int, default=100, help="blows with kill -9 (default: %(default)s)")
    parser.add_argument(
        "--stops", type=int, default=5, help="consumers that stand still for a while (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=int(time.time()), help="repeats the order of the blows")
    parser.add_argument("--lease", type=float, default=3.0, help="of the consumers, seconds (default: %(default)s)")
    parser.add_argument("--clock", choices=("steady", "jumping"), default="jumping", help="the workers' wall clocks")
    parser.add_argument("--pause", type=float, help="longest time between two blows, seconds")
    parser.add_argument("--crashes", action="store_true", help="instead: a crash before each statement in turn")
    parser.add_argument("--keep", type=Path, help="a folder for the log and the journals, which stay there")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rustmq-kills-") as scratch:
        folder = chosen.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        return crash_everywhere(folder) if chosen.crashes else kill_at_random(folder, chosen)


def kill_at_random(folder: Path, chosen: argparse.Namespace) -> int:
    plan = Plan(seed=chosen.seed, kills=chosen.kills, stops=chosen.stops, lease=chosen.lease, clock=chosen.clock)
    plan = plan.on_server() if chosen.url else plan
    plan = plan if chosen.pause is None else replace(plan, pause=chosen.pause)
    say(f"{plan.kills} kills and {plan.stops} stops, seed {plan.seed}")
    file = folder / "log.db"
    began = time.monotonic()
    account = Conductor(chosen.url or f"sqlite:///{file}", folder, plan, say).run()
    if chosen.url is None:
        account.broken += map(str, integrity_check(file))

    say_account(account, began)
    return 0 if account.sound else 1


def crash_everywhere(folder: Path) -> int:
    """Before the first statement, the second, and so on until the program ends first."""
    worse = 0
    for number, account in sweep(folder, count()):
        if account.sound:
            shutil.rmtree(folder / f"before-{number}")

        worse += not account.sound
        if not account.sound:
            say(f"a crash before statement {number}:\n{account}")
        elif number % 20 == 0:
            say(f"statement {number}: {account.confirmed} confirmed, {account.handled} handled, nothing is lost")

    say(f"{number + 1} statements, {worse} of them with a broken promise")
    return min(worse, 1)


if __name__ == "__main__":
    sys.exit(main())
