"""What callers say, looked at before anything is done: a wrong argument is an error here, or a riddle later."""

from __future__ import annotations

import difflib
import inspect
import math
import re
from collections.abc import Collection, Iterable
from functools import partial
from typing import Any

from rustmq_sdk.config import ConsumerConfig
from rustmq_sdk.errors import ConfigurationError
from rustmq_sdk.slots import Source
from rustmq_sdk.values import TopicPartition

_PLAIN_NAME = re.compile(r"[\w.-]+")


def check_whole(field: str, value: object, *, least: int, fix: str) -> None:
    """Refuses what is no whole number of at least ``least``; ``True`` is none."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigurationError(f"expected a whole number of at least {least}", field=field, value=value, fix=fix)


def check_seconds(field: str, value: object, *, fix: str) -> None:
    """Refuses what is no finite number of seconds, 0 or more."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ConfigurationError("expected seconds >= 0", field=field, value=value, fix=fix)


def check_timeout(value: object) -> None:
    """Refuses what is no time to wait for something; None is for as long as it takes."""
    if value is not None:
        check_seconds("timeout", value, fix="0 does not wait, and None waits for as long as it takes")


def named_partitions(partitions: Iterable[tuple[str, int | None]], topics: Collection[str]) -> list[TopicPartition]:
    """The partitions that a caller names. A single pair, or a topic alone, would name something else by accident.

    Args:
        partitions: of these topics, but not only those that are ours.
        topics: that are read; not known where there are none.
    """
    chosen = list(partitions)
    for item in chosen:
        match item:
            case (str(), int() | None):
                continue
            case _:
                raise ConfigurationError(
                    "expected (topic, partition) pairs",
                    field="partitions",
                    value=item,
                    fix='Write for example [("orders", 0)], or pass assigned_partitions',
                )

    named = [TopicPartition(*item) for item in chosen]
    _check_read(named, topics)
    return named


def _check_read(partitions: Iterable[TopicPartition], topics: Collection[str]) -> None:
    # What is no plain name is a pattern or a partition to its driver, and stands for names that nobody knows here.
    if not topics or not all(map(_PLAIN_NAME.fullmatch, topics)):
        return

    for tp in partitions:
        if tp.topic not in topics:
            nearest = difflib.get_close_matches(tp.topic, topics, n=1, cutoff=0.5)
            raise ConfigurationError(
                "this consumer does not read that topic",
                field="partitions",
                value=(tp.topic, tp.partition),
                fix=f"Did you mean {nearest[0]!r}?" if nearest else f"It reads {', '.join(topics)}",
            )


def check_partitions(partitions: Iterable[TopicPartition]) -> None:
    """Refuses what names no partition of a log: a number as text would look like it in every message."""
    for tp in partitions:
        if not isinstance(tp.topic, str):
            raise ConfigurationError(
                "expected a topic's name", field="topic", value=tp.topic, fix='Write it as text, for example "orders"'
            )

        check_whole("partition", tp.partition, least=0, fix="Give the number of the partition; the first one is 0")


def function_behind(handler: Any) -> Any:
    """What is called in the end: below ``functools.partial``, and the ``__call__`` of an object."""
    while isinstance(handler, partial):
        handler = handler.func

    return handler if inspect.isroutine(handler) else getattr(handler, "__call__", handler)  # noqa: B004


def check_handler(handler: Any) -> None:
    """Refuses what cannot be called with one message, and what would be called without running."""
    if not callable(handler):
        raise ConfigurationError(
            "expected a function", field="handler", value=handler, fix="Give run() an async or plain function"
        )

    function = function_behind(handler)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        # Calling it only makes a generator: nothing of it would run, and the message would count as handled.
        raise ConfigurationError(
            "a generator does not run when it is called", field="handler", value=handler, fix="Take out its `yield`"
        )

    try:
        signature = inspect.signature(handler)
    except (TypeError, ValueError):  # some functions written in C have none
        return

    try:
        signature.bind(None)
    except TypeError as error:
        raise ConfigurationError(
            f"it cannot be called with one message: {error}",
            field="handler",
            value=handler,
            fix="It takes one argument: a Message, or Messages where batch_size is given",
        ) from None


def check_source(source: Source, config: ConsumerConfig) -> None:
    """Refuses settings that this kind of source cannot follow, and a log whose retries could lose their bodies."""
    capabilities = source.capabilities
    if capabilities.kind == "queue" and not config.auto_commit:
        raise ConfigurationError(
            "a queue settles every message by itself; there is no position to commit",
            field="auto_commit",
            value=False,
            fix="Leave auto_commit on; await message.ack(durable=True) where you need certainty",
        )

    if capabilities.kind == "log" and not capabilities.read:
        raise ConfigurationError(
            "this log cannot read single offsets again, so a retry could lose its body",
            field="source",
            value=type(source).__name__,
            fix="The driver has to claim and fill `read`; see docs/writing-a-driver.md",
        )
