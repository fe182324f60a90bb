"""How a dead letter is described in the headers of its message: in our words, in Spring's, in those of KIP-1191.

Spring for Apache Kafka: ``DeadLetterPublishingRecoverer`` and ``KafkaHeaders``, 4.0. Numbers are binary, in network
order; its readers take the last header of a name. Headers about the origin are added to those that are there, and those
about the exception are replaced. What we do not know is left out: the class of the cause, the type of the timestamp.

KIP-1191, dead-letter queues of share groups, Apache Kafka 4.4: ``ShareGroupDLQStateManager``. Everything is text. The
broker drops the message's own headers, and its body unless told otherwise; we keep both.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from rustmq_sdk.drivers.kafka.options import Dialect
from rustmq_sdk.letters import as_message
from rustmq_sdk.values import DeadLetter, Headers, OutgoingMessage

_Added = Sequence[tuple[str, bytes]]
_EXCEPTION = "kafka_dlt-exception-"
_ERRORS = "__dlq.errors."


def describe(letter: DeadLetter, dialects: Sequence[Dialect]) -> OutgoingMessage:
    """The message of a letter: its body, its own headers first, and those of each dialect after them."""
    headers: Headers = letter.headers
    for dialect in dialects:
        headers = _DESCRIBE[dialect](letter, headers)

    return OutgoingMessage(letter.payload, letter.key, tuple(headers))


def _ours(letter: DeadLetter, headers: Headers) -> Headers:
    return as_message(letter._replace(headers=headers)).headers


def _springs(letter: DeadLetter, headers: Headers) -> Headers:
    origin = {
        "topic": _text(letter.tp.topic),
        "partition": _packed(">i", letter.tp.partition),
        "offset": _packed(">q", letter.offset),
        "timestamp": _packed(">q", letter.timestamp),
        "consumer-group": _text(letter.group),
    }
    failure = {
        "fqcn": _text(letter.exception_type or None),
        "message": _text(letter.exception_message or letter.reason or None),
        "stacktrace": _text(letter.stack or None),
    }
    kept = [(name, value) for name, value in headers if not name.startswith(_EXCEPTION)]
    return [*kept, *_named("kafka_dlt-original-", origin), *_named(_EXCEPTION, failure)]


def _kip_1191(letter: DeadLetter, headers: Headers) -> Headers:
    about = {
        "topic": _text(letter.tp.topic),
        "partition": _text(letter.tp.partition),
        "offset": _text(letter.offset),
        "group": _text(letter.group),
        "delivery.count": _text(letter.attempts),
        "message": _text(letter.reason or None),
    }
    # A letter about a dead letter: where it was first is in the letter that it is about.
    kept = [(name, value) for name, value in headers if not name.startswith(_ERRORS)]
    return [*kept, *_named(_ERRORS, about)]


def _named(prefix: str, values: dict[str, bytes | None]) -> _Added:
    return [(prefix + name, value) for name, value in values.items() if value is not None]


def _text(value: object) -> bytes | None:
    # A traceback may have any text in it, halves of surrogates too; a letter must not fail for that.
    return None if value is None else str(value).encode("utf-8", "backslashreplace")


def _packed(form: str, value: int | None) -> bytes | None:
    return None if value is None else struct.pack(form, value)


_DESCRIBE: dict[Dialect, Callable[[DeadLetter, Headers], Headers]] = {
    "rustmq": _ours,
    "spring": _springs,
    "kip-1191": _kip_1191,
}
