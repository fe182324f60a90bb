"""Each kind of fault at each call of each operation, one at a time: what the seeds may miss by chance."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from random import Random
from typing import Any, Literal

import anyio
import pytest

from rustmq_sdk import ConsumerConfig, RetryPolicy
from rustmq_sdk.drivers.memory import MemoryDriver
from rustmq_sdk.testing import BACKENDS, KINDS, Fault, FaultPlan
from rustmq_sdk.testing import run as run_loop
from rustmq_sdk.testing.clock import Backend
from rustmq_sdk.testing.faults import Kind
from tests.faults.observer import Process, watchdog
from tests.faults.scenario import GROUP, Scenario
from tests.faults.simulation import LIMIT, Simulation

CALLS = 4
"""Of an operation that are made to fail, one after the other: later ones find the consumer in no other state."""
LOG = ("fetch", "commit", "committed", "start_offsets", "read")
QUEUE = ("fetch", "settle", "extend")
OPERATIONS = [
    *((("log", f"source.{name}")) for name in LOG),
    *((("queue", f"source.{name}")) for name in QUEUE),
    *((kind, name) for kind in ("log", "queue") for name in ("dead_letters.put", "sink.append", "sink.partitions")),
]
# A producer is no member of a group, and a crashed one has nobody who repeats what it said.
OF_PRODUCERS: tuple[Kind, ...] = ("refused", "reply_lost", "reply_late", "hang", "disconnect")
LASTING: dict[Kind, tuple[float, ...]] = {
    "disconnect": (0.7, 2.5),
    "hang": (2.5, math.inf),
    "reply_late": (0.7, 2.5, math.inf),
}
FAULTS = [
    (kind, operation, fault)
    for kind, operation in OPERATIONS
    for fault in (OF_PRODUCERS if operation.startswith("sink") else KINDS)
]


class OneFault(Simulation):
    """One consumer, whose first life has one fault, and a producer; poison, small caches, slow handlers."""

    def __init__(self, kind: Literal["log", "queue"], fault: Fault | None) -> None:
        scenario = replace(
            Scenario.of(1),
            seed=0 if fault is None else fault.call,
            kind=kind,
            partitions=2 if kind == "log" else 1,
            messages=30,
            keys=3,
            consumers=1,
            lives=2,
            poison=frozenset((7, 11)),
            broken=0,
            has_route=True,
            ordered=False,
            checkpoint_room=40,
            rate=0.0,
            retry=RetryPolicy(max_attempts=2, initial=0.2, max_delay=0.5, jitter="none"),
        )
        super().__init__(scenario)
        self._fault = fault
        self._operation = fault.operation if fault is not None else ""

    async def _play_fate(self, rng: Random) -> None:
        """Partitions move a few times, so that positions are asked for more than once; nothing else by itself."""
        for _ in range(CALLS):
            await anyio.sleep(0.3)
            if self.scenario.kind == "log":
                self.broker.expire(GROUP)

    def _life_span(self, rng: Random) -> float:
        return 6.0

    def _oddity(self, rng: Random) -> float:
        return 0.4 if self.scenario.kind == "log" else 0.9

    def _config(self, rng: Random) -> ConsumerConfig:
        return ConsumerConfig(
            group=GROUP,
            commit_interval=0.3,
            commit_every=5,
            max_in_flight=10,
            prefetch=4,
            retry=self.scenario.retry,
            close_timeout=1.5,
            commit_timeout=1.0,
            lease=1.8,
            cache_messages=1,
            circuit_failures=2,
            circuit_open=0.3,
        )

    def _process(self, rng: Random, *, operations: Any = None, crashes: bool | None = None) -> Process:
        is_producer = operations is not None
        mine = self._operation.startswith("sink") == is_producer
        plan = FaultPlan(self._fault) if mine and self._fault is not None else FaultPlan()
        if mine:
            self._fault = None

        self.plans.append(plan)
        return Process(MemoryDriver(self.broker, self._capabilities), plan)


def play(kind: Literal["log", "queue"], fault: Fault | None, backend: Backend) -> Simulation:
    simulation = OneFault(kind, fault)
    with watchdog():
        run_loop(simulation.play, backend=backend, seed=simulation.scenario.seed, limit=LIMIT)

    return simulation


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL + 1, logger="rustmq_sdk")


@pytest.mark.parametrize(("kind", "operation", "fault"), FAULTS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_one_fault_at_every_call(backend: Backend, kind: Literal["log", "queue"], operation: str, fault: Kind) -> None:
    for call in range(1, CALLS + 1):
        for seconds in LASTING.get(fault, (0.0,)):
            simulation = play(kind, Fault(operation, fault, call, seconds), backend)
            assert not simulation.problems, simulation.story(backend)


@pytest.mark.parametrize(("kind", "operation"), OPERATIONS)
def test_every_operation_is_called_often_enough_to_fail(kind: Literal["log", "queue"], operation: str) -> None:
    simulation = play(kind, None, "trio")
    calls = [plan.calls[operation] for plan in simulation.plans]
    assert max(calls) >= 1
