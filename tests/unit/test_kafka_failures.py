from __future__ import annotations

import ssl
from collections.abc import Iterator

import pytest
from aiokafka import errors as kafka

from rustmq_sdk.drivers.kafka.failures import ClosedInGreeting, broker_error, translate
from rustmq_sdk.errors import (
    AuthenticationFailed,
    OutcomeUnknown,
    PermanentDriverError,
    RustMQError,
    TransientDriverError,
    UnknownTopic,
)


def all_of(base: type[Exception]) -> Iterator[type[Exception]]:
    for kind in base.__subclasses__():
        yield kind
        yield from all_of(kind)


def translated(error: BaseException) -> RustMQError:
    return translate(error, slot="sink", operation="append", where="orders[3]")


# Which is abstract: it has no number.
KINDS: list[type[Exception]] = sorted({*all_of(kafka.KafkaError)} - {kafka.BrokerResponseError}, key=str)


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_of_the_client_has_its_class(kind: type[Exception]) -> None:
    error = translated(kind())
    assert isinstance(error, TransientDriverError | PermanentDriverError)
    assert "orders[3]" in str(error)
    if getattr(kind, "retriable", False):
        assert isinstance(error, TransientDriverError | UnknownTopic), "what the client calls retriable may heal"


@pytest.mark.parametrize(
    ("error", "kind", "hint"),
    [
        (kafka.SaslAuthenticationFailed("no"), AuthenticationFailed, "password"),
        (kafka.UnsupportedSaslMechanismError("no"), AuthenticationFailed, "sasl="),
        (kafka.TopicAuthorizationFailedError("orders"), AuthenticationFailed, "ACL"),
        (kafka.GroupAuthorizationFailedError("g"), AuthenticationFailed, "ACL"),
        (kafka.UnknownTopicOrPartitionError(), UnknownTopic, "create=true"),
        (kafka.InvalidTopicError(), UnknownTopic, "letters"),
        (kafka.NotLeaderForPartitionError(), TransientDriverError, "Try again"),
        (kafka.NotEnoughReplicasError(), TransientDriverError, "min.insync.replicas"),
        (kafka.BrokerNotAvailableError(), TransientDriverError, "runs"),
        (kafka.CommitFailedError(), TransientDriverError, "rebalanced"),
        (kafka.MessageSizeTooLargeError(), PermanentDriverError, "max.message.bytes"),
        (kafka.UnsupportedCodecError("lz4"), PermanentDriverError, "pip install cramjam"),
        (broker_error(87), PermanentDriverError, "compacted"),
        (broker_error(73), PermanentDriverError, "delete.topic.enable"),
        (broker_error(75), TransientDriverError, "Try again"),
        (broker_error(4711, "new"), PermanentDriverError, "4711"),
        (TimeoutError(), TransientDriverError, "no answer"),
        (ConnectionRefusedError(111, "refused"), TransientDriverError, "cannot be reached"),
        (ClosedInGreeting("closed"), TransientDriverError, "tls=true"),
        (ssl.SSLCertVerificationError("self-signed"), PermanentDriverError, "ca=PATH"),
        (ssl.SSLError("wrong version"), PermanentDriverError, "Leave tls away"),
        (ValueError("Server sent wrong signature!"), PermanentDriverError, "wrong signature"),
    ],
)
def test_what_matters_to_callers_says_what_to_do(error: Exception, kind: type[Exception], hint: str) -> None:
    ours = translated(error)
    assert type(ours) is kind
    assert hint in str(ours)


def test_ours_is_left_as_it_is() -> None:
    error = OutcomeUnknown("lost")
    assert translated(error) is error


def test_a_number_the_client_knows_becomes_its_error() -> None:
    assert type(broker_error(6)) is kafka.NotLeaderForPartitionError
    assert str(broker_error(36, "it is there")) == "[Error 36] TopicAlreadyExistsError: it is there"
    assert type(broker_error(-1)) is kafka.UnknownError
