"""What can be seen from outside: events as they happen, statistics and health when asked."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from rustmq_sdk.errors import ConfigurationError, PartitionStopped
from rustmq_sdk.values import Checkpoint, DeadLetter, Gone, TopicPartition

EVENTS = (
    "received",
    "settled",
    "retried",
    "dead_lettered",
    "committed",
    "commit_failed",
    "paused",
    "resumed",
    "partition_stopped",
    "circuit_changed",
    "rebalanced",
    "stalled",
    "lost",
)
"""The stable names: observer methods are ``on_<event>``, log records carry them as ``record.event``."""


REASONS = (
    "joined",
    "left",
    "expired",
    "expired_lock",
    "expired_beat",
    "moved",
    "overdue",
    "topics_changed",
    "fenced",
    "assigned",
    "lost",
)
"""Why partitions come and go: see :meth:`Observer.on_rebalanced`."""


class Observer:
    """Implement what you care about; anything with some of these methods will do, subclassing is optional.

    Calls are synchronous, on the loop's thread, and come in batches or with counts, never once a message in the message
    path. An exception in an observer is logged and ends nothing. A method whose name begins with ``on_`` and that would
    never be called, or never run, is refused when the consumer is made.
    """

    def on_received(self, partition: TopicPartition, messages: int, size: int) -> None:
        """A piece arrived from the broker: so many messages, so many bytes."""

    def on_settled(self, partition: TopicPartition, messages: int) -> None:
        """So many messages were acked, or are durably dead-lettered, since the last call for this partition."""

    def on_retried(self, partition: TopicPartition, offset: int | None, attempt: int, delay: float) -> None:
        """Attempt ``attempt`` failed; the next one comes in ``delay`` seconds."""

    def on_dead_lettered(self, letters: Sequence[DeadLetter]) -> None:
        """The dead-letter route has them durably."""

    def on_committed(self, checkpoints: Mapping[TopicPartition, Checkpoint]) -> None:
        """The broker has these positions."""

    def on_commit_failed(self, partitions: Collection[TopicPartition], reason: str) -> None:
        """Nothing is lost: the commit is tried again, or was fenced."""

    def on_paused(self, partitions: Collection[TopicPartition]) -> None:
        """The user paused them."""

    def on_resumed(self, partitions: Collection[TopicPartition]) -> None:
        """The user resumed them."""

    def on_partition_stopped(self, error: PartitionStopped) -> None:
        """A message can be neither handled nor dead-lettered: its partition waits for somebody."""

    def on_circuit_changed(self, circuit: str, before: str, after: str) -> None:
        """``closed``, ``open`` or ``half-open``."""

    def on_rebalanced(
        self, assigned: Collection[TopicPartition], lost: Collection[TopicPartition], reason: str
    ) -> None:
        """Partitions came or went, and why, as far as the driver knows.

        ``joined``: we have just joined the group. ``left``: their owner left it. ``expired_lock``: the owner's process
        ended. ``expired_beat``: the owner was silent for a lease. ``expired``: the others took us, or the owner, for
        dead. ``moved``: given up for somebody else. ``overdue``: their owner was asked to give them up and did not in
        time. ``topics_changed``: the topic was created or deleted. ``fenced``: a commit was refused. ``assigned``,
        ``lost``: the driver does not say why. More words may come.
        """

    def on_stalled(self, partition: TopicPartition, offset: int, age: float) -> None:
        """A delivered message is unsettled for ``age`` seconds and holds back its partition's watermark."""

    def on_lost(self, gone: Gone) -> None:
        """The log no longer has messages that were never settled."""


class Observers:
    """Finds out once who cares about what; an event nobody cares about costs one dictionary lookup.

    Raises:
        ConfigurationError: an observer has a method ``on_…`` that is no event, or one that would not run when it is
            called.
    """

    def __init__(self, observers: Collection[object], report: Callable[[str, BaseException], None]) -> None:
        for observer in _listed(observers):
            _check(observer)

        self._report = report
        self._methods: dict[str, list[Callable[..., None]]] = {
            event: [method for observer in observers if (method := _override(observer, f"on_{event}"))]
            for event in EVENTS
        }

    def wants(self, event: str) -> bool:
        """Whether anybody listens: to spare the work of preparing an event."""
        return bool(self._methods[event])

    def __call__(self, event: str, *details: Any) -> None:
        for method in self._methods[event]:
            try:
                method(*details)
            except (KeyboardInterrupt, SystemExit, GeneratorExit):
                raise
            except BaseException as error:  # somebody else's code: it may end nothing of ours
                # A cancellation as well: one that is meant for this task comes out of an await, and here is none.
                self._report(event, error)


def _listed(observers: Collection[object]) -> Collection[object]:
    if isinstance(observers, Collection):
        return observers

    raise _refusal(observers, "expected a list of observers", "Write observers=[…], even for a single one")


def _check(observer: object) -> None:
    if isinstance(observer, type):
        raise _refusal(observer, "this is a class", f"Give an object of it: {observer.__name__}()")

    for name in dir(observer):
        method = getattr(observer, name, None) if name.startswith("on_") else None
        if method is not None and callable(method):
            _check_method(observer, name, method)


def _check_method(observer: object, name: str, method: Callable[..., object]) -> None:
    event = name.removeprefix("on_")
    if event not in EVENTS:
        nearest = difflib.get_close_matches(event, EVENTS, n=1, cutoff=0.5)
        fix = f"Did you mean on_{nearest[0]}?" if nearest else f"Known are {', '.join(f'on_{name}' for name in EVENTS)}"
        raise _refusal(observer, f"there is no event for its method {name}", fix)

    if any(not_run(called) for called in (method, type(method).__call__) for not_run in _CALLED_WITHOUT_RUNNING):
        raise _refusal(
            observer,
            f"its method {name} does not run when it is called",
            "Events are told in plain calls: write `def` without `async` and `yield`, and hand on what takes time",
        )


_CALLED_WITHOUT_RUNNING = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)


def _refusal(observer: object, problem: str, fix: str) -> ConfigurationError:
    return ConfigurationError(problem, field="observers", value=observer, fix=fix)


def _override(observer: object, name: str) -> Callable[..., None] | None:
    method = getattr(observer, name, None)
    inherited = getattr(Observer, name)
    return method if method is not None and getattr(method, "__func__", None) is not inherited else None


@dataclass(frozen=True, slots=True)
class PartitionStatistics:
    """One partition, exactly: open pieces were counted again."""

    position: int
    watermark: int
    committed: int
    in_flight: int
    uncommitted: int
    paused: bool
    stopped: bool


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counts since the consumer was entered, and levels now."""

    received: int
    """Messages that came from the broker, retries apart."""
    acked: int
    nacked: int
    rejected: int
    redelivered: int
    """Deliveries of attempt 2 and later."""
    dead_lettered: int
    lost: int
    """Messages the log lost before they were settled."""
    commits: int
    """Broker calls that committed something."""
    in_flight: int
    """Unsettled messages, buffered ones included."""
    buffered: int
    waiting_retry: int
    uncommitted: int
    """Settled messages that no written checkpoint covers: they would run again if we died now."""
    oldest_unsettled: float | None
    """Seconds since the oldest unsettled message was handed out; None if there is none."""
    circuits: Mapping[str, str]
    partitions: Mapping[TopicPartition, PartitionStatistics] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that holds something back."""

    code: Literal[
        "starting",
        "no_partitions",
        "unknown_topic",
        "circuit_open",
        "partition_stopped",
        "paused",
        "stalled",
        "max_in_flight",
        "max_uncommitted",
        "max_span",
        "checkpoint_full",
        "rebalancing",
        "commit_failing",
        "dead_letters_failing",
        "failed",
        "closing",
    ]
    text: str
    partition: TopicPartition | None = None
    offset: int | None = None
    since: float | None = None
    """Seconds that it has lasted, where known."""


@dataclass(frozen=True, slots=True)
class Health:
    """Whether messages flow, and what holds them back if not.

    ``ok`` is false for what somebody should look at; back-pressure that works as configured is a reason, but ok.
    """

    ok: bool
    state: Literal["new", "starting", "running", "stopping", "closed", "failed"]
    reasons: Sequence[Reason] = ()
