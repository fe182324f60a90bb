"""Every setting: one schema that validates, documents, and reads keyword arguments, URLs, the environment and files.

A setting has one name everywhere. Where it is given more than once, the first of these wins: keyword argument, URL
query, environment (``RUSTMQ_CONSUMER_<FIELD>``, ``RUSTMQ_PRODUCER_<FIELD>``), file, default.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from itertools import chain
from typing import Annotated, Any, Literal, TypedDict, TypeVar

import msgspec

from rustmq_sdk._loading import load_settings
from rustmq_sdk._moments import NAIVE, NAIVE_FIX
from rustmq_sdk._settings import Rule, Schema, about, choices_of, meaning_of
from rustmq_sdk.errors import ConfigurationError

MIB = 1024 * 1024
Ordering = Literal["partition", "key", "none"]
Settings = TypeVar("Settings", "ConsumerConfig", "ProducerConfig")


class RetryPolicy(Schema, frozen=True, kw_only=True):
    """When a message that failed is tried again, and when it is given up.

    Attempt ``n`` that fails is followed by a pause of ``initial * multiplier ** (n - 1)`` seconds, at most
    ``max_delay``; with ``jitter="full"`` a uniformly random part of it, so that messages that failed together do not
    come back together (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).

    Attributes:
        fatal: exceptions that no retry can heal: they go straight to the dead letters.
        overrides: a policy of its own for some exceptions; the most derived class wins.
        wait: one of tenacity's ``wait_*`` strategies instead of the built-in backoff. It draws from the module
            ``random``.

    Raises:
        ConfigurationError: a name nobody knows, or values that do not fit.
    """

    prefix = "retry."

    max_attempts: Annotated[int, about("Times a message is handed to a handler, the first one included.", ge=1)] = 5
    initial: Annotated[float, about("Seconds of the pause before the second attempt.", ge=0)] = 0.5
    multiplier: Annotated[float, about("Factor by which the pause grows from one attempt to the next.", ge=1)] = 2.0
    max_delay: Annotated[float, about("Seconds of the longest pause between two attempts.", ge=0)] = 60.0
    jitter: Annotated[
        Literal["full", "none"], about("How a pause is spread: 'full' waits a random part of it, 'none' all of it.")
    ] = "full"
    fatal: Annotated[
        tuple[Any, ...], about("Exception classes that no retry can heal: their messages are dead letters at once.")
    ] = ()
    overrides: Annotated[
        Mapping[Any, Any], about("Retry policies for some exception classes, by class; the most derived class wins.")
    ] = {}
    wait: Annotated[
        Callable[[Any], float] | None, about("Wait strategy of tenacity that takes the place of the built-in pauses.")
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for position, kind in enumerate(self.fatal):
            _check_exception_class(f"retry.fatal[{position}]", kind)

        for kind, policy in self.overrides.items():
            _check_exception_class("retry.overrides", kind)
            if not isinstance(policy, RetryPolicy):
                raise ConfigurationError(
                    "expected a RetryPolicy for each exception class",
                    field=f"retry.overrides[{kind.__name__}]",
                    value=policy,
                    fix="Write overrides={ThatError: RetryPolicy(max_attempts=…)}",
                )


class ConsumerConfig(Schema, frozen=True, kw_only=True):
    """How a consumer behaves. Durations are seconds, sizes are bytes."""

    group: Annotated[
        str | None, about("Name of the group whose members share the partitions. None: nothing is committed.")
    ] = None
    start: Annotated[
        Literal["earliest", "latest", "error"] | int | datetime,
        about("Where reading starts in a partition that has no committed position."),
    ] = "earliest"
    auto_commit: Annotated[bool, about("Whether what is settled is committed without being asked.")] = True
    commit_interval: Annotated[float, about("Seconds that a settled message stays uncommitted at most.", gt=0)] = 1.0
    commit_every: Annotated[int, about("Number of settled messages that makes a commit due at once.", ge=1)] = 5000
    max_in_flight: Annotated[
        int, about("Number of unsettled messages, prefetched ones included, beyond which nothing is fetched.", ge=1)
    ] = 10_000
    max_in_flight_bytes: Annotated[
        int, about("Bytes of unsettled messages, prefetched ones included, beyond which nothing is fetched.", ge=1)
    ] = 64 * MIB
    prefetch: Annotated[int, about("Number of messages that are fetched ahead and wait to be handed out.", ge=1)] = 1000
    max_uncommitted: Annotated[
        int, about("Number of settled but uncommitted messages beyond which nothing is fetched.", ge=1)
    ] = 100_000
    max_span: Annotated[
        int, about("Number of offsets that a partition is read ahead of its oldest unsettled message.", ge=1)
    ] = 100_000
    retry: Annotated[RetryPolicy, about("When a message that failed is tried again, and when it is given up.")] = (
        msgspec.field(default_factory=RetryPolicy)
    )
    dead_letter_topic: Annotated[str | None, about("Name of the topic for messages that cannot be handled.")] = None
    dead_letters: Annotated[
        Any, about("Callable that gets a sequence of DeadLetter, or a DeadLetterQueue, instead of a topic.")
    ] = None
    state_store: Annotated[Any, about("StateStore for checkpoints that the broker has no room for.")] = None
    on_lost: Annotated[
        Literal["stop", "dead_letter"],
        about("Whether a partition whose log has lost messages stops, or writes a dead letter about them and goes on."),
    ] = "stop"
    close_timeout: Annotated[
        float,
        about(
            "Seconds that closing may take, and that handlers get to finish when partitions move to another member.",
            gt=0,
        ),
    ] = 25.0
    commit_timeout: Annotated[float, about("Seconds that one commit may take.", gt=0)] = 10.0
    ack_timeout: Annotated[
        float | None, about("Seconds that a message may be in hand, unsettled, before it comes again. None: any time.")
    ] = None
    stall_after: Annotated[float, about("Seconds after which an unsettled message is reported as stalled.", gt=0)] = (
        60.0
    )
    lease: Annotated[float, about("Seconds of silence after which other members take over.", gt=0)] = 30.0
    cache_messages: Annotated[int, about("Number of message bodies that are kept in memory for retries.", ge=0)] = 1000
    cache_ttl: Annotated[float, about("Seconds that a message body is kept in memory for retries.", gt=0)] = 300.0
    cache_bytes: Annotated[int, about("Bytes of the message bodies that are kept in memory for retries.", ge=0)] = (
        64 * MIB
    )
    circuit_failures: Annotated[int, about("Number of failures in a row that opens a circuit.", ge=1)] = 5
    circuit_open: Annotated[float, about("Seconds that an open circuit waits before it tries again.", gt=0)] = 60.0

    def rules(self) -> Iterator[Rule]:
        """Finds settings that contradict each other, each with what would fit."""
        return chain(_rules_of_time(self), _rules_of_names(self), _rules_of_start(self))


class ProducerConfig(Schema, frozen=True, kw_only=True):
    """How a producer behaves. Durations are seconds."""

    linger: Annotated[
        float, about("Seconds that a message of send_nowait() waits for others to be sent with.", ge=0)
    ] = 0.005
    batch_size: Annotated[int, about("Number of messages that makes a batch full.", ge=1)] = 500
    max_buffered: Annotated[int, about("Number of messages waiting to be sent beyond which send() waits.", ge=1)] = (
        10_000
    )
    send_timeout: Annotated[
        float, about("Seconds within which a message is durable or has failed, retries included.", gt=0)
    ] = 30.0

    def rules(self) -> Iterator[Rule]:
        """Finds settings that contradict each other."""
        yield Rule(
            "batch_size",
            self.batch_size > self.max_buffered,
            f"a batch cannot be larger than the buffer ({self.max_buffered})",
            "Lower batch_size or raise max_buffered",
        )


class ConsumerOptions(TypedDict, total=False):
    """The keyword arguments of ``client.consumer()``, for editors; :class:`ConsumerConfig` says what each means."""

    group: str | None
    start: Literal["earliest", "latest", "error"] | int | datetime
    auto_commit: bool
    commit_interval: float
    commit_every: int
    max_in_flight: int
    max_in_flight_bytes: int
    prefetch: int
    max_uncommitted: int
    max_span: int
    retry: RetryPolicy
    dead_letter_topic: str | None
    dead_letters: Any
    state_store: Any
    on_lost: Literal["stop", "dead_letter"]
    close_timeout: float
    commit_timeout: float
    ack_timeout: float | None
    stall_after: float
    lease: float
    cache_messages: int
    cache_ttl: float
    cache_bytes: int
    circuit_failures: int
    circuit_open: float


class ProducerOptions(TypedDict, total=False):
    """The keyword arguments of ``client.producer()``; :class:`ProducerConfig` says what each means."""

    linger: float
    batch_size: int
    max_buffered: int
    send_timeout: float


def fields_of(schema: type[msgspec.Struct]) -> tuple[str, ...]:
    """Returns the names of the settings, in the order of their definition."""
    return schema.__struct_fields__


def describe(schema: type[msgspec.Struct]) -> str:
    """Returns the schema as a table for documentation: name, default, meaning."""
    rows = []
    for item in msgspec.structs.fields(schema):
        default = item.default if item.default is not msgspec.NODEFAULT else item.default_factory()
        shown = "RetryPolicy()" if isinstance(default, RetryPolicy) else repr(default)
        choices = choices_of(schema, item.name)
        meaning = f"{meaning_of(schema, item.name)} Takes {choices}." if choices else meaning_of(schema, item.name)
        rows.append(f"| `{item.name}` | `{shown}` | {meaning} |")

    return "\n".join(["| setting | default | meaning |", "|---|---|---|", *rows])


def load(
    schema: type[Settings],
    given: Mapping[str, Any],
    *,
    url: Mapping[str, str] | None = None,
    file: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
    file_name: str | None = None,
) -> Settings:
    """Merges the five places a setting can come from, and validates the result.

    In the URL and the environment everything is text, and read as what the setting is: ``"5"`` as 5, ``"false"`` as
    False, a ``retry`` as a JSON object. Elsewhere a value has the right type already, or is refused.

    Args:
        schema: the settings of consumers or those of producers.
        given: keyword arguments.
        url: the options of the URL that belong to this schema.
        file: the section of a file.
        environment: ``os.environ`` if None.
        file_name: where ``file`` was read from, for errors.

    Raises:
        ConfigurationError: an unknown name (with the nearest known one), values of the wrong type or out of range, or
            combinations that cannot keep the promises: all of them in one error.
    """
    section = "consumer" if schema is ConsumerConfig else "producer"
    return load_settings(
        schema, section, given=given, url=url or {}, file=file or {}, file_name=file_name, environment=environment
    )


def _check_exception_class(field: str, kind: object) -> None:
    if not (isinstance(kind, type) and issubclass(kind, Exception)):
        raise ConfigurationError(
            "expected an exception class", field=field, value=kind, fix="Give the class itself, for example ValueError"
        )


def _rules_of_time(config: ConsumerConfig) -> Iterator[Rule]:
    yield Rule(
        "close_timeout",
        config.close_timeout >= config.lease,
        f"a consumer that takes longer to close than its lease ({config.lease} s) loses its partitions meanwhile",
        f"Set close_timeout below {config.lease}, or raise lease",
    )
    yield Rule(
        "commit_timeout",
        config.commit_timeout >= config.lease,
        f"a commit that may take longer than the lease ({config.lease} s) may be fenced when it arrives",
        f"Set commit_timeout below {config.lease}, or raise lease",
    )
    yield Rule(
        "ack_timeout",
        config.ack_timeout is not None and config.ack_timeout <= 0,
        "expected a positive number of seconds or None",
        "None never takes a message back",
    )


def _rules_of_names(config: ConsumerConfig) -> Iterator[Rule]:
    yield Rule(
        "dead_letters",
        config.dead_letters is not None and config.dead_letter_topic is not None,
        "dead_letter_topic is given as well",
        "Give one of the two",
    )
    if config.dead_letters is not None:
        yield rule_of_routes(config.dead_letters)

    yield Rule(
        "state_store",
        config.state_store is not None
        and not (hasattr(config.state_store, "get") and hasattr(config.state_store, "put")),
        "expected a StateStore",
        'Give what client.state_store("checkpoints") returns, of whichever client has one',
    )
    yield Rule(
        "dead_letter_topic",
        config.dead_letter_topic == "",
        "a topic needs a name",
        "Use None for a consumer without dead letters",
    )
    yield Rule("group", config.group == "", "a group needs a name", "Use None for a consumer that does not commit")


def rule_of_routes(route: object) -> Rule:
    """What dead letters may go to."""
    return Rule(
        "dead_letters",
        not (callable(route) or hasattr(route, "put")),
        "expected an async callable or a DeadLetterQueue",
        "A callable is called with a sequence of DeadLetter, and awaited if it is async",
    )


def _rules_of_start(config: ConsumerConfig) -> Iterator[Rule]:
    yield Rule(
        "start",
        isinstance(config.start, datetime) and config.start.tzinfo is None,
        NAIVE,
        NAIVE_FIX,
    )
    yield Rule(
        "start",
        isinstance(config.start, int) and config.start < 0,
        "offsets start at 0",
        'Use "earliest", "latest", an offset, or a datetime',
    )
