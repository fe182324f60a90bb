"""The tour: three processes at work, one of them killed and started again, told as it happens."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

import anyio

import rustmq_sdk
from demo_parts import feed
from demo_parts.child import Child
from demo_parts.consumer import LEASE
from demo_parts.journal import Line
from demo_parts.processes import LOOK, Processes
from demo_parts.screen import Screen, bar, spell
from demo_parts.tally import Tally

PARTITIONS = 4
PATIENCE = 60.0
"""Seconds to wait for one thing to happen: it may take a group three leases to miss a member and to share its work."""
QUIET = 2.0
"""Seconds after which somebody who watches is told what the tour waits for."""


class Tour:
    """One run of it.

    Args:
        url: of a log that processes can share.
        program: what starts a process, its role apart.
        folder: for the journals.
        seconds: how long the feed takes.
    """

    def __init__(self, url: str, program: Sequence[str], folder: Path, *, seconds: float) -> None:
        self.topic = f"quakes-{secrets.token_hex(3)}"  # a fresh one: on a shared log others may run the tour as well
        self.tally = Tally()
        self._url = url
        self._seconds = seconds
        self._total = len(feed.read())
        self._screen = Screen(self._progress)
        self._processes = Processes(
            [*program, "--url", url, "--topic", self.topic, "--seconds", str(seconds)], folder, self.tally, self._alarm
        )

    async def run(self) -> int:
        """All of it; returns the lag that is left."""
        async with rustmq_sdk.Client(self._url) as client:
            await client.create_topic(self.topic, partitions=PARTITIONS)
            await client.create_topic(f"{self.topic}.dead")

        try:
            with self._processes:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._processes.watch)
                    producer = await self._begin()
                    tasks.start_soon(self._screen.follow)
                    await self._middle()
                    await self._finish(producer)
                    tasks.cancel_scope.cancel()
        finally:
            self._screen.end()

        return await self._lag()

    async def _begin(self) -> Child:
        a, b = self._processes.start_consumer("A"), self._processes.start_consumer("B")
        await self._until(lambda: self._has_share("A") and self._has_share("B"), "each consumer to get its share")
        producer = self._processes.start_producer()
        self._screen.say(f"{self._total:,} events, {PARTITIONS} partitions, consumers A and B of one group")
        self._screen.say(f"processes: producer {producer.pid}, consumer A {a.pid}, consumer B {b.pid}\n")
        return producer

    async def _middle(self) -> None:
        """One is killed, the other takes over, the first comes back."""
        await until(lambda: self.tally.settled > self._total // 2, "half of the feed", self._seconds + PATIENCE)
        # Whoever has more to do: some partitions are busier than others, and who has which is the broker's choice, so
        # either of the two may be done with its share by now.
        await self._until(lambda: len(self._busiest().in_hand) > 1, "a consumer to have work in its hands")
        name = self._busiest().name
        await self._kill(name)
        await anyio.sleep(self._seconds / 8)
        back = self._processes.start_consumer(name)
        self._screen.say(f"  ...  consumer {name} is back (process {back.pid})")
        await self._until(lambda: self._has_share(name), f"consumer {name} to get its share")
        self._screen.say(f"  ...  consumer {name} has partitions {spell(self._owns(name))} now")

    async def _kill(self, name: str) -> None:
        victim, partitions = self._processes.consumers[name], self._owns(name)
        start = anyio.current_time()
        victim.kill()
        self._processes.look()  # to the last line it has written
        self._screen.say(
            f"  ...  consumer {name} (process {victim.pid}) is killed ({victim.status}), "
            f"events in its hands: {len(victim.in_hand)}"
        )
        missed = f"partitions {spell(partitions)} to be taken over: a group may miss a member after {LEASE:.0f} s only"
        await self._until(lambda: not self._owns(name), missed)
        late = (anyio.current_time() - start) * 1000
        (heir,) = self._processes.consumers.keys() - {name}
        self._screen.say(f"  ...  {late:,.0f} ms later consumer {heir} has its partitions {spell(partitions)}")

    async def _finish(self, producer: Child) -> None:
        await self._until_settled(producer)
        consumers = self._processes.consumers.values()
        for consumer in consumers:
            consumer.ask_to_end()

        await self._until(lambda: all(consumer.status is not None for consumer in consumers), "the consumers to end")
        self._processes.look()
        self._processes.check()

    async def _until_settled(self, producer: Child) -> None:
        """Until nothing is missing, or nothing has come for a long time: then the account says what is lost."""
        seen = -1
        while seen != self.tally.settled:
            seen = self.tally.settled
            with anyio.move_on_after(PATIENCE):
                await comes_true(lambda: producer.status is not None and not self.tally.lost)
                return

    async def _lag(self) -> int:
        """What is left to do, as one who joins the group now finds it: positions that were committed, nothing else."""
        async with (
            rustmq_sdk.Client(self._url) as client,
            client.consumer(self.topic, group=f"{self.topic}.alarm") as newcomer,
        ):
            await until(lambda: len(newcomer.assigned_partitions) == PARTITIONS, "a newcomer to get all partitions")
            return sum((await newcomer.get_lag()).values())

    async def _until(self, condition: Callable[[], object], what: str) -> None:
        """As :func:`until`, and what takes long is said."""
        with anyio.move_on_after(QUIET):
            await comes_true(condition)
            return

        self._screen.say(f"  ...  waiting for {what}")
        await until(condition, what)

    def _busiest(self) -> Child:
        return max(self._processes.consumers.values(), key=lambda consumer: len(consumer.in_hand))

    def _owns(self, name: str) -> list[int]:
        return self._processes.partitions_of(name)

    def _has_share(self, name: str) -> bool:
        return len(self._owns(name)) == PARTITIONS // 2

    def _alarm(self, line: Line) -> None:
        if line.text:
            again = "  (again)" if self.tally.handled[line.id] > 1 else ""
            self._screen.say(f"ALARM  {line.text}{again}")

    def _progress(self) -> str:
        done = f"{bar(self.tally.settled, self._total)} {len(self.tally.published):5,} published"
        return "   ".join([done, *(self._describe(child) for child in self._processes.consumers.values())])

    def _describe(self, consumer: Child) -> str:
        if consumer.status is not None:
            return f"{consumer.name} is dead" if consumer.status else f"{consumer.name} has left"

        if partitions := self._owns(consumer.name):
            return f"{consumer.name} on {spell(partitions)}: {consumer.handled:3} handled"

        return f"{consumer.name} joins"


async def comes_true(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110  # it is for a person's eyes, and spares every counter an event
        await anyio.sleep(LOOK)


async def until(condition: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
    """Raises ``TimeoutError`` if it takes longer."""
    with anyio.move_on_after(patience) as waiting:
        await comes_true(condition)

    if waiting.cancelled_caught:
        raise TimeoutError(f"{patience:.0f} s were not enough for {what}.")
