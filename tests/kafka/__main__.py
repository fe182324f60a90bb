"""The long forms: python -m tests.kafka --help."""

from __future__ import annotations

import argparse
import logging
import random
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio

import rustmq_sdk
from tests.kafka.crowd import Crowd, Turmoil
from tests.kills.conductor import Conductor, Plan
from tests.kills.reckoning import Account
from tests.kills.telling import say, say_account
from tests.services.holding import Holding
from tests.services.kafka_server import KafkaServer, OwnKafka
from tests.services.proxy import Proxy

Disturb = Callable[[Crowd], Coroutine[Any, Any, None]]


def main() -> int:
    chosen = _arguments()
    logging.disable(logging.NOTSET if chosen.verbose else logging.CRITICAL)
    broken = [what for what in chosen.what or RUNS if not _run(what, chosen)]
    say(f"promises were broken by: {', '.join(broken)}" if broken else "every promise was kept")
    return 1 if broken else 0


def _run(what: str, chosen: argparse.Namespace) -> bool:
    """On one loop after the other; whether every promise was kept."""
    sound = True
    with _server("kafka3" if what == "brokers" else "kafka") as server:
        for loop in ["both loops"] if what == "kills" else chosen.loops:
            say(f"{what} on {loop}, seed {chosen.seed}")
            began = time.monotonic()
            with tempfile.TemporaryDirectory(prefix="rustmq-kafka-") as scratch:
                folder = (chosen.keep or Path(scratch)) / f"{what}-{loop.replace(' ', '-')}"
                folder.mkdir(parents=True)
                account = RUNS[what](server, folder, chosen, loop)

            say_account(account, began)
            sound = sound and account.sound

    return sound


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.kafka",
        description="Troubles a group on Kafka for a long time, and accounts for each message.",
    )
    parser.add_argument(
        "what", nargs="*", help="; ".join(f"{name}: {run.__doc__}" for name, run in RUNS.items()) + " (default: all)"
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="of trouble (default: %(default)s)")
    parser.add_argument("--kills", type=int, default=100, help="with kill -9, of kills (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of who is troubled, and how")
    parser.add_argument("--loops", nargs="+", choices=("asyncio", "trio"), default=["asyncio", "trio"])
    parser.add_argument("--keep", type=Path, help="a folder for the journals, which stay there")
    parser.add_argument("--verbose", action="store_true", help="with what the package logs")
    chosen = parser.parse_args()
    for unknown in set(chosen.what) - RUNS.keys():
        parser.error(f"there is no {unknown!r}; choose from {', '.join(RUNS)}")

    return chosen


@contextmanager
def _server(name: str) -> Iterator[KafkaServer]:
    """One for this run alone, or the one that is up."""
    holding = Holding(name)
    try:
        holding.wait()
        yield OwnKafka(name)
    finally:
        holding.let_go()
        holding.close()


def kills(server: KafkaServer, folder: Path, chosen: argparse.Namespace, loop: str) -> Account:
    """producers and consumers are killed"""
    del loop
    plan = Plan(seed=chosen.seed, kills=chosen.kills, lease=2.0).on_server()
    return Conductor(f"kafka://{server.bootstrap}", folder, plan, say).run()


def rebalances(server: KafkaServer, folder: Path, chosen: argparse.Namespace, loop: str) -> Account:
    """members join and leave every second"""
    return _turmoil(f"kafka://{server.bootstrap}", folder, chosen, loop, every=1.0)


def brokers(server: KafkaServer, folder: Path, chosen: argparse.Namespace, loop: str) -> Account:
    """one of three nodes at a time is killed, and comes back"""
    rng = random.Random(chosen.seed)

    async def disturb(crowd: Crowd) -> None:
        while True:
            await anyio.sleep(rng.uniform(2, 6))
            node = rng.choice(server.nodes)
            say(f"      {node} is killed")
            crowd.trouble()
            with anyio.CancelScope(shield=True):
                await server.kill(node)
                await anyio.sleep(rng.uniform(0, 6))
                await server.restart(node)
                crowd.trouble()

    return _turmoil(f"kafka://{server.bootstrap}", folder, chosen, loop, every=5.0, disturb=disturb)


def networks(server: KafkaServer, folder: Path, chosen: argparse.Namespace, loop: str) -> Account:
    """the network is cut, half-open, or slow"""
    rng = random.Random(chosen.seed)
    with Proxy(server.bootstrap) as network:

        async def disturb(crowd: Crowd) -> None:
            while True:
                await anyio.sleep(rng.uniform(2, 8))
                trouble = rng.choice((network.cut, network.freeze, lambda: network.slow_down(0.3)))
                crowd.trouble()
                trouble()
                seconds = rng.uniform(0.5, 10)
                say(f"      the network is troubled for {seconds:.1f} s")
                try:
                    await anyio.sleep(seconds)
                finally:
                    network.mend()
                    crowd.trouble()

        return _turmoil(f"kafka://{network.bootstrap}", folder, chosen, loop, every=5.0, disturb=disturb)


RUNS = {run.__name__: run for run in (kills, rebalances, brokers, networks)}


def _turmoil(
    url: str, folder: Path, chosen: argparse.Namespace, loop: str, *, every: float, disturb: Disturb | None = None
) -> Account:
    turmoil = Turmoil(f"crowd-{secrets.token_hex(4)}", chosen.seconds, every=every, seed=chosen.seed)

    async def run() -> Account:
        async with rustmq_sdk.Client(url) as client:
            await client.create_topic(turmoil.topic, partitions=turmoil.partitions)

        crowd = Crowd(url, folder, turmoil)
        account = await crowd.run(disturb)
        say(f"      members joined or left {crowd.changes} times")
        return account

    return anyio.run(run, backend=loop)


if __name__ == "__main__":
    sys.exit(main())
