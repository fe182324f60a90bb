"""A tour: a week of earthquakes through the embedded log, with failures on purpose, and nothing lost.

A producer sends the feed while two consumers of one group read it already. Look-ups fail and are retried; what is not
an earthquake goes to a dead-letter topic; half-way one consumer is cancelled with messages in its hands, and comes back
later. At the end every published event is accounted for, or the program says which are not and exits with 1.

    python examples/demo.py                        about ten seconds, on a file in a temporary folder
    python examples/demo.py --backend trio         the same on trio
    python examples/demo.py --url memory://       the same on another log
"""

from __future__ import annotations

import argparse
import logging
import secrets
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial

import anyio

import rustmq_sdk
from demo_parts import feed
from demo_parts.alarm import Alarm
from demo_parts.screen import Screen, table
from demo_parts.tally import Tally

PARTITIONS = 4
ON_PURPOSE = ("handler_failed", "dead_lettered")
PATIENCE = 15.0
"""Seconds without any progress after which what is missing counts as lost."""


class Demo:
    """One run of the tour over an open client."""

    def __init__(self, client: rustmq_sdk.Client, *, seconds: float) -> None:
        self.topic = f"quakes-{secrets.token_hex(3)}"  # a fresh one: on a shared log others may run the tour as well
        self.tally = Tally()
        self._client = client
        self._seconds = seconds
        self._total = len(feed.read())
        self._screen = Screen(self.tally, self._total)
        self._members: dict[str, rustmq_sdk.Consumer] = {}
        self._interrupted = False

    async def run(self) -> int:
        """The whole tour; returns the lag that is left."""
        await self._client.create_topic(self.topic, partitions=PARTITIONS)
        self._screen.say(f"{self._total:,} events, {PARTITIONS} partitions, consumers A and B of one group\n")
        async with self._client.producer() as producer, anyio.create_task_group() as tasks:
            tasks.start_soon(self._screen.follow)
            tasks.start_soon(self._member, "A")
            tasks.start_soon(self._interrupted_member, "B")
            await feed.publish(producer, self.topic, self.tally, seconds=self._seconds)
            await self._until_settled()
            for consumer in self._members.values():
                consumer.stop()  # ends run(); leaving the context commits what is settled

            await until(lambda: not self._members)
            tasks.cancel_scope.cancel()  # only the progress line is left

        self._screen.end()
        return await self._lag()

    async def _member(self, name: str) -> None:
        """One member of the group: the whole of what a program has to write to consume."""
        consumer = self._client.consumer(
            self.topic,
            group="alarm",
            dead_letter_topic=f"{self.topic}.dead",
            retry=rustmq_sdk.RetryPolicy(initial=0.1),
            observers=[self.tally],
        )
        self._members[name] = consumer
        try:
            async with consumer:
                await consumer.run(Alarm(name, self.tally, self._screen), concurrency=8, ordering="key")
        finally:
            del self._members[name]

    async def _interrupted_member(self, name: str) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._cancel_half_way, name, tasks.cancel_scope)
            await self._member(name)

        await anyio.sleep(self._seconds / 8)
        self._screen.say(f"  ...  consumer {name} is back")
        self._interrupted = True
        await self._member(name)

    async def _cancel_half_way(self, name: str, scope: anyio.CancelScope) -> None:
        await until(lambda: self.tally.settled >= self._total // 2)
        with anyio.move_on_after(1):
            await until(lambda: self.tally.busy[name] > 0)

        self._screen.say(f"  ...  consumer {name} is cancelled; events in its hands: {self.tally.busy[name]}")
        scope.cancel()

    async def _until_settled(self) -> None:
        """Until nothing is missing and B is back, or nothing has come for a long time."""
        seen = -1
        while seen != self.tally.settled:
            seen = self.tally.settled
            with anyio.move_on_after(PATIENCE):
                await until(lambda: not self.tally.lost and self._interrupted)
                return

    async def _lag(self) -> int:
        """What is left to do, as one who joins the group now finds it: positions that were committed, nothing else."""
        async with self._client.consumer(self.topic, group="alarm") as newcomer:
            with anyio.fail_after(PATIENCE):
                await until(lambda: len(newcomer.assigned_partitions) == PARTITIONS)

            return sum((await newcomer.get_lag()).values())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  # it is for a person's eyes, and spares every counter an event
        await anyio.sleep(0.005)


async def tour(url: str, *, seconds: float, keeps: bool) -> int:
    start = anyio.current_time()
    async with rustmq_sdk.Client(url) as client:
        demo = Demo(client, seconds=seconds)
        lag = await demo.run()

    print()
    print(table(demo.tally, lag=lag, seconds=anyio.current_time() - start))
    if keeps:
        print(f"\nThe topics {demo.topic} and {demo.topic}.dead are left there, to look at.")

    return verdict(demo.tally, lag)


def verdict(tally: Tally, lag: int) -> int:
    """The exit status, and why."""
    if tally.lost:
        some = ", ".join(sorted(tally.lost)[:5])
        print(f"\n{len(tally.lost)} events were lost, which must never happen. Some of them: {some}", file=sys.stderr)

    if lag:
        print(f"\n{lag} messages are not committed although the tour is over, which must not be.", file=sys.stderr)

    return 1 if tally.lost or lag else 0


def main(url: str, *, backend: str, seconds: float, keeps: bool) -> int:
    status = 2
    try:
        status = anyio.run(partial(tour, url, seconds=seconds, keeps=keeps), backend=backend)
    except* rustmq_sdk.RustMQError as errors:
        for error in leaves(errors):
            print(f"\nThe tour cannot go on. {error}", file=sys.stderr)
    except* TimeoutError as errors:
        print(f"\nThe tour cannot go on: the log has not answered in time. {errors.exceptions[0]}", file=sys.stderr)
    except* KeyboardInterrupt:
        print("\nInterrupted before its end.", file=sys.stderr)
        status = 130

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
    parser.add_argument("--url", help="another log than a file in a temporary folder, for example memory://")
    parser.add_argument("--seconds", type=float, default=8.0, help="how long the feed takes (default: %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    chosen = arguments()
    # What happens on purpose is counted on the screen; whatever else the package logs shall be seen.
    logging.getLogger("rustmq_sdk").addFilter(lambda record: getattr(record, "event", None) not in ON_PURPOSE)
    print(f"A week of earthquakes, through {chosen.url or 'the embedded log'}, on {chosen.backend}.")
    with tempfile.TemporaryDirectory(prefix="rustmq-demo-") as folder:
        where = chosen.url or f"sqlite:///{folder}/demo.db"
        sys.exit(main(where, backend=chosen.backend, seconds=chosen.seconds, keeps=chosen.url is not None))
