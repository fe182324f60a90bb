"""What is looked at while a simulation runs, and how long it may take."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from types import FrameType

import anyio

from rustmq_sdk import Consumer, ConsumerConfig, OutgoingMessage
from rustmq_sdk.drivers.memory import MemoryDriver
from rustmq_sdk.testing import FaultPlan, FaultyDriver
from tests.faults.journal import Journal
from tests.faults.records import Owner
from tests.faults.scenario import Scenario

STUCK = 15
"""Real seconds: a simulation takes a few hundredths, unless two tasks wake each other without time going by."""
TASKS = 6
"""Of one consumer beside its workers: subscription, fetcher, ack-handler, redelivery, dead letters, leases."""


class Observer:
    """Looks at the bounds of one consumer now and then."""

    def __init__(self, journal: Journal, consumer: Consumer, owner: Owner, config: ConsumerConfig) -> None:
        self._journal = journal
        self._consumer = consumer
        self._owner = owner
        self._config = config

    async def watch(self, rng: Random, workers: int) -> None:
        """Until cancelled."""
        while True:
            await anyio.sleep(rng.uniform(0.05, 2.0))
            self._check_bounds()
            if rng.random() < 0.2:
                self._check_tasks(workers)

    def _check_bounds(self) -> None:
        config, statistics = self._config, self._consumer.statistics()
        # A partition that comes later gets its floor even where those before it have used up everything.
        grown = 2 if self._owner.assignments > 1 else 1
        if statistics.in_flight > config.max_in_flight * grown:
            self._broken(f"{statistics.in_flight} in flight, max_in_flight={config.max_in_flight}")

        buffer = self._consumer._session.buffer
        fresh = sum(len(waiting) for lane in buffer.lanes.values() for waiting in lane.waiting)
        if fresh > config.prefetch * grown + len(buffer.lanes):
            self._broken(f"{fresh} wait undelivered, prefetch={config.prefetch}")

        if any(level < 0 for level in (statistics.in_flight, statistics.buffered, statistics.uncommitted)):
            self._broken(f"negative levels: {statistics}")

        held = sum(lane.ledger.in_flight_bytes for lane in buffer.lanes.values())
        if held > config.max_in_flight_bytes + 200:
            self._broken(f"{held} bytes in flight, max_in_flight_bytes={config.max_in_flight_bytes}")

    def _check_tasks(self, workers: int) -> None:
        mine = [task.name for task in anyio.get_running_tasks() if (task.name or "").startswith("rustmq_sdk")]
        for name in set(mine):
            if "worker" not in str(name) and mine.count(name) > 4:
                self._broken(f"{mine.count(name)} tasks called {name}")

    def _broken(self, problem: str) -> None:
        self._journal.broken(f"{self._owner.name}: {problem}")


class Process:
    """A driver of its own behind faults of its own: what a process has."""

    def __init__(self, driver: MemoryDriver, plan: FaultPlan) -> None:
        self._driver = driver
        self._faulty = FaultyDriver(driver, plan)

    async def __aenter__(self) -> FaultyDriver:
        await self._driver.__aenter__()
        return self._faulty

    async def __aexit__(self, *exc_info: object) -> None:
        await self._driver.__aexit__(*exc_info)


def outgoing(scenario: Scenario, rng: Random, number: int) -> OutgoingMessage:
    """Message ``number``: its body says so."""
    key = None if rng.random() < 0.1 else b"k%d" % rng.randrange(scenario.keys)
    return OutgoingMessage(b"%d" % number, key=key)


@contextmanager
def watchdog() -> Iterator[None]:
    """Ends what runs for ever without time going by, which no virtual deadline can."""

    def bark(_signal: int, frame: FrameType | None) -> None:
        raise RuntimeError("tasks wake each other for ever, and virtual time stands still")

    before = signal.signal(signal.SIGALRM, bark)
    signal.alarm(STUCK)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
