"""What aiokafka and the brokers report, in the words of this package: the one place where their errors are translated.

aiokafka swallows why a connection failed: it logs that, and raises an error that says only that there is none. Our own
connections (``connecting.py``) keep the reason, so the driver makes one before it lets aiokafka try.
"""

from __future__ import annotations

import asyncio
import ssl

from aiokafka import errors as kafka

from rustmq_sdk.errors import (
    AuthenticationFailed,
    DriverError,
    PermanentDriverError,
    RustMQError,
    TransientDriverError,
    UnknownTopic,
)


class NotSent(Exception):
    """No connection could be made, so the request had no effect. The cause says why."""


class Unanswered(Exception):
    """The request was sent, and its answer was lost. The cause says how."""


class ClosedInGreeting(ConnectionError):
    """A broker took the connection, and closed it before it had answered anything."""


class InvalidRecord(kafka.BrokerResponseError):  # type: ignore[misc]  # aiokafka has no types for us to see
    """Newer than aiokafka's list."""

    errno = 87
    message = "INVALID_RECORD"


class TopicDeletionDisabled(kafka.BrokerResponseError):  # type: ignore[misc]
    """Newer than aiokafka's list."""

    errno = 73
    message = "TOPIC_DELETION_DISABLED"


class FencedLeaderEpoch(kafka.BrokerResponseError):  # type: ignore[misc]
    """Newer than aiokafka's list."""

    errno = 74
    message = "FENCED_LEADER_EPOCH"
    retriable = True


class UnknownLeaderEpoch(kafka.BrokerResponseError):  # type: ignore[misc]
    """Newer than aiokafka's list."""

    errno = 75
    message = "UNKNOWN_LEADER_EPOCH"
    retriable = True


class FencedInstanceId(kafka.BrokerResponseError):  # type: ignore[misc]
    """Newer than aiokafka's list."""

    errno = 82
    message = "FENCED_INSTANCE_ID"


class ThrottlingQuotaExceeded(kafka.BrokerResponseError):  # type: ignore[misc]
    """Newer than aiokafka's list."""

    errno = 89
    message = "THROTTLING_QUOTA_EXCEEDED"
    retriable = True


_NEWER = {
    error.errno: error
    for error in (
        InvalidRecord,
        TopicDeletionDisabled,
        FencedLeaderEpoch,
        UnknownLeaderEpoch,
        FencedInstanceId,
        ThrottlingQuotaExceeded,
    )
}

_AUTHENTICATION: dict[type[Exception], str] = {
    kafka.SaslAuthenticationFailed: "user or password are wrong. Correct them, or the sasl mechanism they belong to",
    kafka.AuthenticationFailedError: "user or password are wrong. Correct them, or the sasl mechanism they belong to",
    kafka.UnsupportedSaslMechanismError: "the broker does not take this mechanism here. Choose another sasl=…",
    kafka.AuthenticationMethodNotSupported: "the broker does not take this mechanism here. Choose another sasl=…",
    kafka.IllegalSaslStateError: "this listener knows no users. Leave sasl away, or name the port of one that does",
    kafka.TopicAuthorizationFailedError: "this user may not do that with the topic. Add an ACL for it",
    kafka.GroupAuthorizationFailedError: "this user may not use the group. Add an ACL for it",
    kafka.ClusterAuthorizationFailedError: "this user may not do that in the cluster. Add an ACL for it",
    kafka.TransactionalIdAuthorizationFailed: "this user may not use the transactional id. Add an ACL for it",
    kafka.DelegationTokenAuthorizationFailed: "this user may not do that. Add an ACL for it",
}
_UNKNOWN_TOPIC: dict[type[Exception], str] = {
    kafka.UnknownTopicOrPartitionError: "there is no such topic or partition. Create it first, with "
    "Client.create_topic() for example, or have it made: create=true in the URL",
    kafka.InvalidTopicError: "that is no name for a topic. Use at most 249 letters, digits, dots, _ and -",
}
_TRANSIENT: dict[type[Exception], str] = {
    kafka.KafkaConnectionError: "the connection was lost. Look whether the broker runs",
    kafka.NodeNotReadyError: "the broker cannot be reached. Look whether it runs, and at its advertised.listeners",
    kafka.KafkaTimeoutError: "no answer in time. Look whether the broker is overloaded",
    kafka.RequestTimedOutError: "the broker did not finish in time. Look at the replicas of the partition",
    kafka.NotEnoughReplicasError: "fewer replicas are in sync than min.insync.replicas asks for. Bring brokers back",
    kafka.NotEnoughReplicasAfterAppendError: "fewer replicas are in sync than min.insync.replicas asks for. Bring "
    "brokers back",
    kafka.LeaderNotAvailableError: "the partition has no leader now. It gets one soon, unless its brokers are down",
    kafka.KafkaUnavailableError: "the cluster cannot be reached. Look whether its brokers run",
    kafka.BrokerNotAvailableError: "the broker is not available. Look whether it runs",
    kafka.ReplicaNotAvailableError: "a replica is not available. It comes back with its broker",
    kafka.StaleLeaderEpochCodeError: "the broker was cut off while it answered. Try again",  # NETWORK_EXCEPTION today
    kafka.StaleControllerEpochError: "the controller has changed. Try again",
    kafka.RebalanceInProgressError: "the group is rebalancing. Try again",
    kafka.IllegalGenerationError: "the group has rebalanced. Try again",
    kafka.UnknownMemberIdError: "the group has given this member up. It joins again",
    kafka.CommitFailedError: "the group has rebalanced. Try again",
    kafka.FetchSessionIdNotFound: "the broker has forgotten the fetch session. Try again",
    kafka.InvalidFetchSessionEpoch: "the broker has forgotten the fetch session. Try again",
    kafka.ConcurrentTransactions: "another transaction is being finished. Try again",
    kafka.ReassignmentInProgress: "the partitions are being moved. Try again",
}
_PERMANENT: dict[type[Exception], str] = {
    kafka.MessageSizeTooLargeError: "a message is larger than the topic takes. Raise the topic's max.message.bytes, or "
    "keep the body elsewhere and send its name",
    kafka.RecordListTooLargeError: "a batch is larger than a segment of the topic. Lower batch_bytes",
    kafka.InvalidRequiredAcksError: "the broker refuses acks=all. Use Kafka 0.11 or later",
    kafka.UnsupportedForMessageFormatError: "the topic's message format is older than headers. Use Kafka 0.11 or later",
    kafka.IncompatibleBrokerVersion: "the broker is too old for this. Use Kafka 2.4 or later",
    kafka.UnsupportedVersionError: "the broker and this client share no version of the request. Upgrade the older one",
    kafka.UnsupportedCodecError: "the messages are compressed, and what unpacks them is not installed. Run: pip "
    "install cramjam",
    kafka.InvalidTimestampError: "a timestamp is outside of what the topic takes (message.timestamp.before.max.ms and "
    "after.max.ms). Correct it",
    kafka.PolicyViolationError: "a policy of the cluster forbids it. Ask who runs it",
    kafka.OffsetMetadataTooLargeError: "the broker takes less beside an offset than Kafka's default. Set "
    "offset.metadata.max.bytes to 4096",
    kafka.InvalidSessionTimeoutError: "the broker does not allow this session timeout. Choose session_timeout between "
    "its group.min.session.timeout.ms and group.max.session.timeout.ms",
    kafka.ProducerFenced: "another producer has taken this one's place. Make a new producer",
    FencedInstanceId: "another member of the group goes by this one's name now, and has its partitions. Give each "
    "member a group_instance_id of its own",
    InvalidRecord: "the broker refuses a message. A compacted topic takes messages with keys only",
    TopicDeletionDisabled: "the brokers let nobody delete topics. Set delete.topic.enable=true there",
}


def broker_error(code: int, said: str | None = None) -> Exception:
    """The error that a response names by its number; ``said`` is the broker's own word on it."""
    kind = _NEWER.get(code) or kafka.for_code(code)
    if kind is kafka.UnknownError and code != kafka.UnknownError.errno:
        said = f"error {code}: {said or 'this release does not know it'}"

    error: Exception = kind(said) if said else kind()
    return error


def no_topic(*names: str, slot: str, operation: str) -> UnknownTopic:
    """The error for topics that do not exist, and that are not to be made."""
    which = f"is no topic {names[0]!r}" if len(names) == 1 else f"are no topics {', '.join(map(repr, names))}"
    return UnknownTopic(
        f"there {which}. Create it first, with Client.create_topic() for example, or have it made: create=true in the "
        "URL",
        slot=slot,
        operation=operation,
    )


def translate(error: BaseException, *, slot: str, operation: str, where: str = "") -> RustMQError:
    """The error to raise instead of one of aiokafka's, of a socket or of TLS.

    Args:
        error: what was raised; one of ours is returned as it is.
        slot: as in :class:`~rustmq_sdk.errors.DriverError`.
        operation: as there.
        where: the server that was asked, or the partition it is about.
    """
    if isinstance(error, RustMQError):
        return error

    reason = error.__cause__ if isinstance(error, NotSent | Unanswered) else None
    if isinstance(reason, RustMQError):
        return reason

    kind, advice = _judge(reason or error)
    said = str(error) or type(error).__name__
    prefix = f"{where}: " if where else ""
    return kind(f"{prefix}{advice} ({said})", slot=slot, operation=operation)


def _judge(error: BaseException) -> tuple[type[DriverError], str]:
    tables = (
        (AuthenticationFailed, _AUTHENTICATION),
        (UnknownTopic, _UNKNOWN_TOPIC),
        (TransientDriverError, _TRANSIENT),
        (PermanentDriverError, _PERMANENT),
    )
    for kind, table in tables:
        for known, advice in table.items():
            if type(error) is known:
                return kind, advice

    if isinstance(error, ssl.SSLError | OSError | TimeoutError | asyncio.IncompleteReadError):
        return _judge_connection(error)

    if isinstance(error, NotSent | Unanswered):
        return TransientDriverError, "the connection is gone. Look whether the broker runs"

    if getattr(error, "retriable", False):
        return TransientDriverError, "that may pass. Try again"

    return PermanentDriverError, f"refused as {type(error).__name__}"


def _judge_connection(error: BaseException) -> tuple[type[DriverError], str]:
    if isinstance(error, ssl.SSLCertVerificationError):
        return PermanentDriverError, (
            "the broker's certificate is not trusted. Name its authority with ca=PATH, and the host as it "
            "is named there"
        )

    if isinstance(error, ssl.SSLError) and "ALERT" in (getattr(error, "reason", None) or ""):
        return AuthenticationFailed, (
            "the broker refuses our certificate, or that we have none. Give one that it trusts: "
            "certificate=PATH&key=PATH"
        )

    if isinstance(error, ssl.SSLError):
        return PermanentDriverError, "this port does not speak TLS. Leave tls away, or name the port of one that does"

    if isinstance(error, ClosedInGreeting):
        return TransientDriverError, (
            "the broker closed the connection in greeting. Either it is going down, or this port wants what is not "
            "given: tls=true (or none), a certificate=…, or sasl=…"
        )

    if isinstance(error, TimeoutError):
        return TransientDriverError, "no answer in time. Look whether the broker runs and the port is its"

    return TransientDriverError, "the server cannot be reached. Look whether the broker runs, and its address"
