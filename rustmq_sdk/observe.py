"""What can be seen from outside: events as they happen, statistics and health when asked.

The page docs/observing.md describes all of it for those who run a program: each event, each log record, each count, and
what to do.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from rustmq_sdk._log import LOG_EVENTS as LOG_EVENTS
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
"""What observers are told of: the method for an event is ``on_<event>``.

Log records have names as well, in ``record.event``: the keys of ``LOG_EVENTS``. Most of what is logged has no method,
and what happens all the time (``received``, ``settled``, ``committed``, …) is not logged. An event that is both has one
name.
"""


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
"""Why partitions come and go; :meth:`Observer.on_rebalanced` explains each word."""


class Observer:
    """Override the methods you care about, and give an object of your class: ``client.consumer(…, observers=[mine])``.

    Deriving from this class is optional: an object with some of these methods will do.

    The methods are called on the thread of the event loop, as plain calls, so they must not block. They are called with
    batches and counts, never once for each message that arrives or is acked. An exception that one raises is logged
    (``observer_failed``) and ends nothing. A method whose name begins with ``on_`` and is no event, and one that is
    ``async`` or a generator, are refused when the consumer is made.
    """

    def on_received(self, partition: TopicPartition, messages: int, size: int) -> None:
        """A fetch has brought this many messages of one partition, together of ``size`` bytes."""

    def on_settled(self, partition: TopicPartition, messages: int) -> None:
        """This many messages were acked or dead-lettered since the last call for this partition."""

    def on_retried(self, partition: TopicPartition, offset: int | None, attempt: int, delay: float) -> None:
        """Attempt number ``attempt`` has failed, and the message comes again in ``delay`` seconds."""

    def on_dead_lettered(self, letters: Sequence[DeadLetter]) -> None:
        """The dead-letter route has stored these letters."""

    def on_committed(self, checkpoints: Mapping[TopicPartition, Checkpoint]) -> None:
        """The broker has stored these positions. Queues have no positions, and this is never called for them."""

    def on_commit_failed(self, partitions: Collection[TopicPartition], reason: str) -> None:
        """Positions (of a queue: settlements) could not be stored. Nothing is lost, and the commit is tried again."""

    def on_paused(self, partitions: Collection[TopicPartition]) -> None:
        """The program has called ``pause_partitions()`` for these."""

    def on_resumed(self, partitions: Collection[TopicPartition]) -> None:
        """The program has called ``resume_partitions()`` for these."""

    def on_partition_stopped(self, error: PartitionStopped) -> None:
        """A message can be neither handled nor dead-lettered, so its partition waits until somebody resumes it.

        The error has the topic, the partition and the offset, the reason, and what to do.
        """

    def on_circuit_changed(self, circuit: str, before: str, after: str) -> None:
        """A circuit breaker has gone from one state to another: ``"closed"``, ``"open"`` or ``"half-open"``.

        The circuits are ``"source.fetch"``, ``"source.settle"`` (commits, and settlements of queues), ``"source.read"``
        (bodies for retries), ``"dead_letters.put"`` and ``"state.checkpoints"``.
        """

    def on_rebalanced(
        self, assigned: Collection[TopicPartition], lost: Collection[TopicPartition], reason: str
    ) -> None:
        """Partitions have come to this consumer, or have left it. The reason is one of these words.

        * ``"joined"``: this consumer has just joined the group.
        * ``"left"``: their owner has left the group in good order.
        * ``"expired_lock"``: their owner's process has ended.
        * ``"expired_beat"``: their owner gave no sign of life for a lease.
        * ``"expired"``: the others took this consumer, or the owner, for dead.
        * ``"moved"``: they were given up for another member.
        * ``"overdue"``: their owner was asked to give them up, and did not in time.
        * ``"topics_changed"``: a topic was created or deleted.
        * ``"fenced"``: a commit was refused, because another member has the partition.
        * ``"assigned"`` and ``"lost"``: the driver does not say why.

        Later releases may bring more words.
        """

    def on_stalled(self, partition: TopicPartition, offset: int, age: float) -> None:
        """A delivered message has been unsettled for ``age`` seconds and holds back its partition's position.

        It is told once for each such message, after ``stall_after`` seconds.
        """

    def on_lost(self, gone: Gone) -> None:
        """The log no longer has these messages, which were never settled."""


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
    """One partition at this moment. A queue has no offsets that mean anything, so only the other fields count there."""

    position: int
    """The offset of the next message that is handed out, retries apart."""
    watermark: int
    """The first offset that is not settled: all messages below it are."""
    committed: int
    """The watermark that the broker has stored. A consumer that starts now begins there."""
    in_flight: int
    """Messages that were fetched and are not settled, those included that wait to be handed out."""
    uncommitted: int
    """Settled messages that would be delivered again if the process ended now."""
    paused: bool
    """Whether the program has paused it."""
    stopped: bool
    """Whether it waits at a message that can be neither handled nor dead-lettered."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """What ``consumer.statistics()`` returns: counts since the consumer was entered, and levels at this moment.

    All of them count messages, unless they say otherwise.
    """

    received: int
    """Messages that came from the broker. A retry is not counted again."""
    acked: int
    """Messages that were acked, by ``ack()`` or by a handler that returned."""
    nacked: int
    """Attempts that failed: by ``nack()``, or by a handler that raised."""
    rejected: int
    """Messages that were rejected: by ``reject()``, or by a handler that raised ``Reject``."""
    redelivered: int
    """Deliveries of a second or later attempt."""
    dead_lettered: int
    """Messages whose letter the dead-letter route has stored."""
    lost: int
    """Messages that the log lost before they were settled."""
    commits: int
    """Calls to the broker that stored positions or settlements."""
    in_flight: int
    """Messages that were fetched and are not settled, those included that wait to be handed out."""
    buffered: int
    """Messages in flight that wait to be handed out."""
    waiting_retry: int
    """Messages that failed and wait here for their next attempt. A queue's wait at the broker and are not counted."""
    uncommitted: int
    """Settled messages that would be delivered again if the process ended now."""
    oldest_unsettled: float | None
    """Age in seconds of the oldest unsettled message, from when the first of its fetch was handed out; None: none."""
    circuits: Mapping[str, str]
    """The state of each circuit breaker by its name: ``"closed"``, ``"open"`` or ``"half-open"``."""
    partitions: Mapping[TopicPartition, PartitionStatistics] = field(default_factory=dict)
    """The partitions that this consumer has now."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that holds messages back."""

    code: Literal[
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
    """Which one: docs/observing.md explains each."""
    text: str
    """The same in a sentence, for people."""
    partition: TopicPartition | None = None
    """The partition that it concerns; None if it concerns them all."""
    offset: int | None = None
    """The message that it concerns, if it is one."""
    since: float | None = None
    """For how many seconds it has lasted, where that is known."""


@dataclass(frozen=True, slots=True)
class Health:
    """What ``consumer.health()`` returns: whether messages flow, and what holds them back if not."""

    ok: bool
    """False where somebody should look. Back-pressure that works as configured is a reason, and still ok."""
    state: Literal["new", "starting", "running", "stopping", "closed", "failed"]
    """Where the consumer is in its life."""
    reasons: Sequence[Reason] = ()
    """What holds messages back, the worst first."""
