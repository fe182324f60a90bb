"""What the parts of one running consumer share."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal, cast

import anyio

from rustmq_sdk._core.buffer import Buffer
from rustmq_sdk._core.lane import Lane
from rustmq_sdk._core.ledger import Ledger
from rustmq_sdk._error_text import repr_of
from rustmq_sdk._log import log
from rustmq_sdk._runtime.breaker import Breaker
from rustmq_sdk._runtime.home import Home
from rustmq_sdk._runtime.seeding import new_rng
from rustmq_sdk.config import ConsumerConfig
from rustmq_sdk.errors import ConsumerClosed, PartitionStopped, RustMQError
from rustmq_sdk.observe import Observers
from rustmq_sdk.slots import AnySubscription, Capabilities, LogSubscription, QueueSubscription
from rustmq_sdk.values import Assignment

State = Literal["new", "starting", "running", "stopping", "closed", "failed"]


def _report_observer(event: str, error: BaseException) -> None:
    log(logging.ERROR, "observer_failed", "an observer failed in on_%s: %s", event, repr_of(error), exc_info=error)


@dataclass(slots=True)
class Counts:
    """What ``statistics()`` adds up; touched in the slow paths only."""

    received: int = 0
    settled: int = 0
    """Of partitions that were given up or moved; the ledgers of the present ones know their own."""
    settled_unacked: int = 0
    """Of all partitions: dead-lettered, or dropped on the user's word."""
    nacked: int = 0
    rejected: int = 0
    redelivered: int = 0
    dead_lettered: int = 0
    lost: int = 0
    commits: int = 0


@dataclass(eq=False)
class Session:
    """State and services common to the tasks of one consumer.

    Attributes:
        clock: the loop's clock, in seconds; durations are measured with it.
        wall: milliseconds since the epoch; timestamps come from it.
        rng: backoff draws from it.
        failure: the first error that ends the consumer; raised to the user by ``check``.
        stopping: no further message is handed out.
        closing: leaving; waits end at once.
    """

    config: ConsumerConfig
    capabilities: Capabilities
    observers: Observers
    clock: Callable[[], float] = anyio.current_time
    wall: Callable[[], int] = lambda: time.time_ns() // 1_000_000
    rng: random.Random = field(default_factory=new_rng)
    buffer: Buffer = field(default_factory=Buffer)
    counts: Counts = field(default_factory=Counts)
    circuits: dict[str, Breaker] = field(default_factory=dict)
    state: State = "new"
    failure: BaseException | None = None
    failure_seen: bool = False
    stopping: bool = False
    closing: bool = False
    over: bool = False
    """A ``run()`` has returned because of ``stopping``, or the context was left: there is no other run."""
    abandoned: bool = False
    """The context is being left: nobody will settle what ``receive()`` handed out."""
    wake_receivers: Callable[[], None] = lambda: None
    """Everybody who waits for a message looks again."""
    wake_receiver: Callable[[], None] = lambda: None
    """A message may be there: one of those who wait looks."""
    held_at_close: Collection[Assignment] = ()
    """What was ours to the end: nobody took it away, and what is stale of it is so because of the closing."""
    moment_doubted: bool = False
    """That a number is meant as a moment in milliseconds, aloud and once."""
    home: Home | None = None
    """The loop it was entered in."""
    _subscription: AnySubscription | None = None

    @property
    def subscription(self) -> AnySubscription:
        """The live subscription; there is one as long as tasks of ours run."""
        assert self._subscription is not None, "used before the source was entered"
        return self._subscription

    @subscription.setter
    def subscription(self, subscription: AnySubscription) -> None:
        self._subscription = subscription

    @property
    def log(self) -> LogSubscription:
        """The subscription, where the source is a log."""
        return cast(LogSubscription, self.subscription)

    @property
    def queue(self) -> QueueSubscription:
        """The subscription, where the source is a queue."""
        return cast(QueueSubscription, self.subscription)

    @property
    def missing_topics(self) -> Mapping[str, str]:
        """What does not exist (yet), as far as the driver has seen, and what to say of each."""
        return {} if self._subscription is None else self._subscription.missing_topics

    def require_loop(self, call: str) -> None:
        """Raises ``ConsumerStateError`` in another loop than the consumer's, where the call would wait in vain."""
        if self.home is not None:
            self.home.require(call)

    def require_thread(self, call: str) -> None:
        """Raises ``ConsumerStateError`` in another thread than the consumer's, from where nothing can be told."""
        if self.home is not None:
            self.home.require_thread(call)

    def end_fetch(self) -> None:
        """Has a waiting fetch return; nothing waits before the source was entered."""
        if self._subscription is not None:
            self._subscription.wake()

    def circuit(self, name: str) -> Breaker:
        """The breaker of one slot and kind of call, made on first use."""
        breaker = self.circuits.get(name)
        if breaker is None:
            config = self.config
            breaker = self.circuits[name] = Breaker(
                name,
                failures=config.circuit_failures,
                open_for=config.circuit_open,
                clock=self.clock,
                on_change=self._circuit_changed,
            )

        return breaker

    def _circuit_changed(self, circuit: str, before: str, after: str) -> None:
        log(logging.WARNING, "circuit_changed", "circuit %s: %s -> %s", circuit, before, after)
        self.observers("circuit_changed", circuit, before, after)

    def fail(self, error: BaseException) -> None:
        """Ends the consumer. The first failure is kept and reaches the user as itself."""
        if self.failure is None:
            self.failure = error
            self.state = "failed"
            # Errors of ours say enough in a line, and are raised with their traceback.
            trace = None if isinstance(error, RustMQError) else error
            log(logging.ERROR, "failed", "the consumer cannot go on: %s", repr_of(error), exc_info=trace)

        self.wake_receivers()

    def check_failure(self) -> None:
        """Raises the error that ended the consumer, if one did."""
        if self.failure is not None:
            self.failure_seen = True
            raise self.failure

    def check(self) -> None:
        """Raises what a waiting receiver must know instead of waiting on."""
        self.check_failure()
        if self.stopping or self.state == "closed":
            raise ConsumerClosed("the consumer was stopped or closed; there are no further messages")

        stopped = self.all_stopped()
        if stopped is not None:
            raise stopped

    def all_stopped(self) -> PartitionStopped | None:
        """The first partition's stop if every assigned partition is stopped; then nothing can come any more."""
        first: PartitionStopped | None = None
        for lane in self.buffer.lanes.values():
            if lane.stopped is None:
                return None

            first = first or lane.stopped

        return first

    def recount(self, ledger: Ledger) -> int:
        """Counts what was settled without telling anybody, and announces it; how many messages that were."""
        counted = ledger.recount_all().messages
        self.announce(ledger)
        return counted

    def announce(self, ledger: Ledger) -> None:
        """Tells observers what was settled since they were told; not what a queue took back."""
        fresh = ledger.settled_for_good - ledger.announced
        if fresh > 0:
            ledger.announced += fresh
            self.observers("settled", ledger.assignment.tp, fresh)

    @property
    def lanes(self) -> Collection[Lane]:
        """The assigned partitions."""
        return self.buffer.lanes.values()


def observers_of(observers: Collection[object]) -> Observers:
    """Observers whose own errors are logged."""
    return Observers(observers, _report_observer)
