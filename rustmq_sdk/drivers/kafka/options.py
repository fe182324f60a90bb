"""What may stand in a ``kafka://`` URL, and what cannot stand there together."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from itertools import chain
from typing import Annotated, Literal, cast

import msgspec

from rustmq_sdk.drivers.kafka.security import Secret
from rustmq_sdk.options import Rule, Schema, about

MIB = 1024 * 1024

Dialect = Literal["rustmq", "spring", "kip-1191"]
DIALECTS: tuple[Dialect, ...] = ("rustmq", "spring", "kip-1191")

_TLS_ONLY = ("ca", "certificate", "key", "key_password")
_SECRETS = ("password", "key_password")


class KafkaOptions(Schema, frozen=True, kw_only=True):
    """The servers and options of a URL. Durations are seconds, sizes are bytes; None leaves it to something else.

    Making one raises ``ConfigurationError`` for whatever does not fit, all of it in one error. Passwords are hidden
    wherever it is shown.
    """

    servers: Annotated[tuple[str, ...], about("Brokers to begin with, as host:port.")]
    tls: Annotated[bool, about("Whether the connections are encrypted.")] = False
    ca: Annotated[str | None, about("Path of the certificates to trust, as PEM. None: those of the system.")] = None
    certificate: Annotated[str | None, about("Path of this program's own certificate, as PEM, for mutual TLS.")] = None
    key: Annotated[
        str | None,
        about("Path of the certificate's private key, as PEM. None: the key is in the file of the certificate."),
    ] = None
    key_password: Annotated[str | None, about("Password that the private key is encrypted with.")] = None
    check_hostname: Annotated[bool, about("Whether a broker's certificate has to name the broker's host.")] = True
    sasl: Annotated[
        Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None,
        about("SASL mechanism by which user and password are proven. None: there are no users."),
    ] = None
    user: Annotated[str | None, about("Name of the user, with sasl.")] = None
    password: Annotated[str | None, about("Password of the user, with sasl.")] = None
    client_id: Annotated[str, about("Name of this program in the brokers' logs, metrics and quotas.")] = "rustmq-sdk"
    client_rack: Annotated[
        str | None, about("Rack or zone in which this program runs: brokers let it read from replicas there.")
    ] = None
    group_instance_id: Annotated[
        str | None, about("Name of this member that outlives its process (static membership).")
    ] = None
    isolation: Annotated[
        Literal["read_uncommitted", "read_committed"],
        about("Whether messages of aborted and open transactions are read."),
    ] = "read_uncommitted"
    session_timeout: Annotated[
        float | None, about("Seconds of silence after which a member is taken for dead. None: the lease.", gt=0)
    ] = None
    rebalance_timeout: Annotated[
        float | None, about("Seconds that a rebalance waits for a member. None: fits close_timeout.", gt=0)
    ] = None
    request_timeout: Annotated[
        float | None, about("Seconds to wait for a broker's answer. None: fits rebalance_timeout.", gt=0)
    ] = None
    max_partition_fetch_bytes: Annotated[int, about("Bytes of one partition that a fetch may bring.", ge=1)] = MIB
    fetch_max_wait: Annotated[float, about("Seconds that a broker keeps a fetch that finds nothing.", gt=0)] = 0.5
    metadata_max_age: Annotated[
        float,
        about("Seconds until a group looks again for new partitions, and for topics that match its pattern.", gt=0),
    ] = 30.0
    compression: Annotated[
        Literal["none", "gzip", "snappy", "lz4", "zstd"],
        about("How messages that are sent are compressed; those that are read may be compressed in any way."),
    ] = "none"
    batch_bytes: Annotated[
        int,
        about(
            "Bytes of messages that may be stored as one batch; has to be below the topic's max.message.bytes.", ge=1
        ),
    ] = 1_000_000
    create: Annotated[bool, about("Whether topics that are sent to or read are made where they do not exist.")] = False
    partitions: Annotated[
        int | None, about("Number of partitions of topics that create=true makes. None: 1.", ge=1)
    ] = None
    replication_factor: Annotated[
        int | None, about("Number of copies of topics that are made. None: the brokers' default.", ge=1)
    ] = None
    dead_letter_headers: Annotated[
        str,
        about("How headers describe a dead letter: rustmq, spring, kip-1191, or several with commas between."),
    ] = "rustmq"
    thread: Annotated[
        bool,
        about("Whether the client runs in a thread of its own, so that a handler that blocks the loop delays nothing."),
    ] = False

    def __post_init__(self) -> None:
        for name in _SECRETS:
            _hide(self, name)

        super().__post_init__()

    def rules(self) -> Iterator[Rule]:
        """Options that cannot stand together, each with what would fit."""
        return chain(_rules_of_tls(self), _rules_of_sasl(self), _rules_of_topics(self))

    @property
    def dialects(self) -> tuple[Dialect, ...]:
        """The dialects of ``dead_letter_headers``, in order."""
        return tuple(cast("Dialect", name.strip()) for name in self.dead_letter_headers.split(","))


OPTIONS: tuple[str, ...] = tuple(name for name in KafkaOptions.__struct_fields__ if name != "servers")
"""The names of the URL options."""


def _hide(options: KafkaOptions, name: str) -> None:
    value = getattr(options, name)
    if isinstance(value, str):
        msgspec.structs.force_setattr(options, name, Secret(value))


def _rules_of_tls(options: KafkaOptions) -> Iterator[Rule]:
    for name in _TLS_ONLY:
        yield Rule(
            name,
            not options.tls and getattr(options, name) is not None,
            "means something with TLS only",
            "Add tls=true",
        )

    yield Rule(
        "check_hostname", not (options.tls or options.check_hostname), "means something with TLS only", "Add tls=true"
    )
    alone = options.certificate is None
    for name in ("key", "key_password"):
        given = getattr(options, name) is not None
        yield Rule(name, alone and given, "belongs to a certificate, and there is none", "Add certificate=PATH")


def _rules_of_sasl(options: KafkaOptions) -> Iterator[Rule]:
    mechanism = "Add sasl=SCRAM-SHA-512, or SCRAM-SHA-256 or PLAIN, as the brokers have it"
    without = options.sasl is None
    yield Rule("user", without and options.user is not None, "how the user is proven is not said", mechanism)
    stray = without and options.user is None and options.password is not None
    yield Rule("password", stray, "there is no user that it belongs to", f"Name the user, and: {mechanism}")
    nobody = not without and not options.user
    yield Rule(
        "sasl",
        nobody,
        "needs a user, and there is none",
        "Write kafka://USER:PASSWORD@HOST, or set RUSTMQ_KAFKA_USER",
    )
    silent = not without and bool(options.user) and not options.password
    yield Rule(
        "sasl", silent, "needs a password, and there is none", "Set RUSTMQ_KAFKA_PASSWORD, or write it into the URL"
    )


def _rules_of_topics(options: KafkaOptions) -> Iterator[Rule]:
    yield Rule(
        "partitions",
        options.partitions is not None and not options.create,
        "counts the partitions of topics that are made, and none are made",
        "Add create=true, or give the number to create_topic()",
    )
    unknown = [name for name in options.dialects if name not in DIALECTS]
    yield Rule(
        "dead_letter_headers",
        bool(unknown) or len(set(options.dialects)) < len(options.dialects),
        f"there is no dialect {unknown[0]!r}" if unknown else "a dialect is named twice",
        f"Write one of {', '.join(DIALECTS)}, or several with commas between them",
    )
    yield Rule(
        "compression",
        options.compression not in ("none", "gzip") and find_spec("cramjam") is None,
        "needs the package cramjam, which is not installed",
        "Run: pip install cramjam",
    )
    yield Rule("servers", not options.servers, "no broker is named", "Write kafka://HOST:9092")
