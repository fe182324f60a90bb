"""What a seed stands for: the shape of the world, the settings, the faults, and how users behave."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any, Literal

from rustmq_sdk import ConsumerConfig, RetryPolicy
from rustmq_sdk.testing import KINDS, Fault, FaultPlan
from rustmq_sdk.testing.faults import Kind

TOPIC = "t"
GROUP = "g"
FAULTY = (
    "source.fetch",
    "source.commit",
    "source.committed",
    "source.start_offsets",
    "source.read",
    "source.settle",
    "source.extend",
    "dead_letters.put",
)
QUIET_KINDS: tuple[Kind, ...] = tuple(kind for kind in KINDS if not kind.startswith("crash"))
TEMPERS = ("steady", "steady", "hasty", "clumsy", "wild")


@dataclass(frozen=True)
class Scenario:
    """Drawn once for a seed. What varies from one consumer's life to the next is drawn when that life begins."""

    seed: int
    kind: Literal["log", "queue"]
    partitions: int
    messages: int
    keys: int
    consumers: int
    lives: int
    poison: frozenset[int]
    broken: int
    has_route: bool
    ordered: bool
    """Everybody handles by key or by partition, so that first successes come in order."""
    checkpoint_room: int | None
    rate: float
    most: int
    crashes: bool
    retry: RetryPolicy

    @classmethod
    def of(cls, seed: int) -> Scenario:
        """The scenario of a seed: always the same."""
        rng = Random(seed)
        kind: Literal["log", "queue"] = "queue" if rng.random() < 0.2 else "log"
        messages = rng.choice((20, 60, 120, 250))
        has_route = rng.random() < 0.85
        return cls(
            seed=seed,
            kind=kind,
            partitions=1 if kind == "queue" else rng.randint(1, 4),
            messages=messages,
            keys=rng.choice((1, 3, 10, 50)),
            consumers=rng.randint(1, 3),
            lives=rng.randint(1, 3),
            poison=frozenset(rng.sample(range(messages), rng.choice((0, 0, 1, 3)))),
            broken=rng.choice((0, 0, 2)) if has_route and kind == "log" else 0,
            has_route=has_route,
            ordered=kind == "log" and rng.random() < 0.3,
            checkpoint_room=rng.choice((None, None, 0, 12, 24, 200)),
            rate=rng.choice((0.0, 0.03, 0.1, 0.2)),
            most=rng.choice((3, 10, 25)),
            crashes=rng.random() < 0.3,
            retry=RetryPolicy(
                max_attempts=rng.randint(1, 4),
                initial=rng.choice((0.0, 0.05, 0.5)),
                max_delay=rng.choice((0.5, 3.0)),
                jitter=rng.choice(("full", "none")),
            ),
        )

    def config(self, rng: Random) -> ConsumerConfig:
        """Settings of one life."""
        max_in_flight = rng.choice((3, 10, 50, 1000))
        settings: dict[str, Any] = {
            "group": GROUP,
            "auto_commit": self.kind == "queue" or rng.random() < 0.9,
            "commit_interval": rng.choice((0.2, 1.0, 3.0)),
            "commit_every": rng.choice((1, 7, 50, 5000)),
            "max_in_flight": max_in_flight,
            "prefetch": rng.choice((1, 5, 20, 1000)),
            "max_in_flight_bytes": rng.choice((60, 400, 1 << 20)),
            "max_uncommitted": rng.choice((5, 40, 1000)),
            "max_span": rng.choice((5, 40, 1000)),
            "retry": self.retry,
            "close_timeout": rng.choice((2.0, 6.0)),
            "commit_timeout": rng.choice((1.0, 4.0)),
            "ack_timeout": rng.choice((None, None, None, 4.0)),
            "stall_after": rng.choice((0.5, 60.0)),
            "lease": 8.0,
            "cache_messages": rng.choice((0, 1, 1000)),
            "cache_bytes": rng.choice((0, 20, 1 << 20)),
            "cache_ttl": rng.choice((0.2, 300.0)),
            "circuit_failures": rng.choice((1, 2, 5)),
            "circuit_open": rng.choice((0.3, 2.0)),
        }
        return ConsumerConfig(**settings)

    def plan(self, seed: int) -> FaultPlan:
        """The faults of one life."""
        return Plan.random(
            seed,
            rate=self.rate,
            most=self.most,
            kinds=KINDS if self.crashes else QUIET_KINDS,
            operations=FAULTY,
            seconds=3.0,
        )


class Plan(FaultPlan):
    """Spares the calls that are made all the time, so that enough faults are left for the rare ones."""

    def _drawn(self, operation: str, call: int) -> Fault | None:
        rate = self._rate
        try:
            self._rate = rate / 5 if operation in ("source.fetch", "sink.append") else min(0.5, rate * 3)
            return super()._drawn(operation, call)
        finally:
            self._rate = rate
