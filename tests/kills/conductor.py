"""Starts producers and consumers as processes, kills and stops them, and reads the log at the end."""

from __future__ import annotations

import random
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import anyio

import rustmq_sdk
from tests.kills.contents import contents
from tests.kills.journal import Event, Journal, read
from tests.kills.lives import Bounds, Place
from tests.kills.reckoning import Account, reckon, unsettled
from tests.kills.sender import TOPIC
from tests.kills.standstills import noting
from tests.kills.worker import COMMIT_INTERVAL, group_of

ROOT = Path(__file__).parents[2]
PARTITIONS = 4
SENDERS, WORKERS = 2, 3
PATIENCE = 40.0
"""Seconds for which nothing may move before what is missing counts as lost."""
LOOK = 0.02


@dataclass(frozen=True)
class Plan:
    """What to do to whom.

    Attributes:
        kills: with -9, of producers and consumers at random; each is started again.
        stops: of consumers, for more than a lease; they go on then, and find out.
        pause: the longest time between two blows, seconds.
        lease: of the consumers, seconds.
        clock: ``steady`` or ``jumping``.
        sending_pause: seconds between two sends of a producer.
        topic: a name that nobody else uses there.
    """

    seed: int = 0
    kills: int = 10
    stops: int = 0
    pause: float = 0.6
    lease: float = 3.0
    clock: str = "steady"
    sending_pause: float = 0.01
    topic: str = TOPIC

    def on_server(self) -> Plan:
        """The same where topics are remembered, others have theirs, and a group waits for its dead for a lease.

        Quicker, and nobody would ever get to work; and what is sent as fast as into a file would pile up meanwhile.
        """
        return replace(self, topic=f"kills-{secrets.token_hex(4)}", pause=2 * self.lease, sending_pause=0.1)


class Child:
    """One program, started again after each death under the next name."""

    def __init__(self, name: str, command: Callable[[str], Sequence[str]], folder: Path) -> None:
        self._name = name
        self._command = command
        self._folder = folder
        self._numbers = count()
        self.who = ""

    def start(self) -> None:
        self.who = f"{self._name}.{next(self._numbers)}"
        with (self._folder / f"{self.who}.log").open("wb") as log:
            # Its own group: an impatient Ctrl-C reaches the conductor, who ends the others in good order.
            self._process = subprocess.Popen(
                [sys.executable, "-m", *self._command(self.who)], cwd=ROOT, stderr=log, start_new_session=True
            )

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def end(self, number: signal.Signals, patience: float = PATIENCE) -> None:
        """Waits for its death by that signal.

        Raises:
            AssertionError: it has not ended, or not well.
        """
        self.send(number)
        try:
            status = self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise AssertionError(f"{self.who} has not ended {patience:g} s after {number.name}") from None

        if number != signal.SIGKILL:
            assert status == 0, f"{self.who} ended with {status}: {self.said()}"

    def check(self) -> None:
        """Raises ``AssertionError`` if it died by itself."""
        assert self._process.poll() is None, f"{self.who} died by itself: {self.said()}"

    def said(self) -> str:
        return (self._folder / f"{self.who}.log").read_text()


class Conductor:
    """One run, on whatever the URL names."""

    def __init__(self, url: str, folder: Path, plan: Plan, say: Callable[[str], None]) -> None:
        self._url = url
        self._folder = folder
        self._plan = plan
        self._say = say
        self._rng = random.Random(plan.seed)
        self._journal = Journal(folder / "conductor.journal")
        self._senders = [Child(f"s{number}", self._sender, folder) for number in range(SENDERS)]
        self._workers = [Child(f"w{number}", self._worker, folder) for number in range(WORKERS)]
        self._alive: list[Child] = []
        self.stored: Mapping[str, Sequence[Place]] = {}

    def run(self) -> Account:
        """All blows, the drain, and the account."""
        anyio.run(self._create)
        with noting(self._journal, self._url), self._running():
            for number, blow in enumerate(self._blows(), start=1):
                self._wait(self._rng.uniform(0.05, self._plan.pause))
                self._say(f"{number:4d}  {blow()}")

            self._end(self._senders)
            self.stored = anyio.run(self._contents)
            self._say(f"      the producers have ended, {len(self.stored):,} messages are stored")
            self._drain()
            self._end(self._workers)

        account = reckon(read(self._folder), self.stored, Bounds(COMMIT_INTERVAL, self._plan.lease))
        lag = anyio.run(self._lag)
        if lag:
            account.broken.append(f"everything is settled and the group's lag is {lag}")

        return account

    # Blows

    def _blows(self) -> list[Callable[[], str]]:
        blows = [self._kill] * self._plan.kills + [self._stop] * self._plan.stops
        self._rng.shuffle(blows)
        return blows

    def _kill(self) -> str:
        victim = self._rng.choice(self._senders + self._workers * 2)
        self._journal.note("killed", victim.who)
        victim.end(signal.SIGKILL)
        before = victim.who
        victim.start()
        return f"{before} is killed, {victim.who} takes its place"

    def _stop(self) -> str:
        victim = self._rng.choice(self._workers)
        seconds = self._plan.lease * self._rng.uniform(0.2, 2.0)
        self._journal.note("stopped", victim.who)
        victim.send(signal.SIGSTOP)
        try:
            self._wait(seconds)
        finally:
            # In this order: it never runs while it is said to stand still, however late this process is.
            victim.send(signal.SIGCONT)
            self._journal.note("continued", victim.who)

        return f"{victim.who} stood still for {seconds:.1f} s"

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, LOOK))
            for child in self._alive:
                child.check()

    # Processes

    @contextmanager
    def _running(self) -> Iterator[None]:
        try:
            for child in (*self._senders, *self._workers):
                child.start()
                self._alive.append(child)

            self._until(
                lambda events: len({event.who for event in events if event.what == "ready"}) == len(self._alive)
            )
            yield
        finally:
            for child in self._alive:
                with suppress(AssertionError):
                    child.end(signal.SIGKILL)

    def _end(self, children: Sequence[Child]) -> None:
        names = {child.who for child in children}
        # Before that a signal would find nobody who ends in good order.
        self._until(lambda events: names <= {event.who for event in events if event.what == "ready"})
        for child in children:
            self._alive.remove(child)
            child.end(signal.SIGTERM)

    def _sender(self, who: str) -> list[str]:
        name = who.split(".", maxsplit=1)[0]
        ends = [
            int(event.details[1])
            for event in read(self._folder)
            if event.who.startswith(f"{name}.") and event.what == "sending"
        ]
        first, pause = max(ends, default=0), self._plan.sending_pause
        return ["tests.kills.sender", self._url, self._plan.topic, str(self._folder), who, str(first), str(pause)]

    def _worker(self, who: str) -> list[str]:
        loop = "trio" if who.startswith("w1") else "asyncio"
        manner = "busy" if who.startswith("w2") else "quick"
        plan = self._plan
        told = [self._url, plan.topic, str(self._folder), who, loop, str(plan.lease), manner, plan.clock]
        return ["tests.kills.worker", *told]

    # Looking

    def _drain(self) -> None:
        """Until everything that is stored was settled, or nothing has moved for a long time."""
        self._until(lambda events: not unsettled(events, self.stored))

    def _until(self, done: Callable[[list[Event]], bool]) -> None:
        seen, since = -1, time.monotonic()
        while time.monotonic() - since < PATIENCE:
            events = read(self._folder)
            if done(events):
                return

            if len(events) != seen:
                seen, since = len(events), time.monotonic()

            self._wait(0.2)

        self._say(f"      nothing has moved for {PATIENCE:g} s")

    # The log

    async def _create(self) -> None:
        async with rustmq_sdk.Client(self._url) as client:
            await client.create_topic(self._plan.topic, partitions=PARTITIONS)

    async def _contents(self) -> dict[str, list[Place]]:
        async with rustmq_sdk.Client(self._url) as client:
            return await contents(client, PARTITIONS, self._plan.topic)

    async def _lag(self) -> int:
        topic = self._plan.topic
        async with rustmq_sdk.Client(self._url) as client, client.consumer(topic, group=group_of(topic)) as newcomer:
            with anyio.fail_after(PATIENCE):
                while len(newcomer.assigned_partitions) < PARTITIONS:  # noqa: ASYNC110  # others have gone: soon
                    await anyio.sleep(LOOK)

            return sum((await newcomer.get_lag()).values())
