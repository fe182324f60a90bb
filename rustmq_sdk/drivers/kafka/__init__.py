"""Apache Kafka: ``kafka://[user:password@]host:port,host:port``."""

from __future__ import annotations

from collections.abc import Mapping

from rustmq_sdk._urls import locate
from rustmq_sdk.drivers.kafka.driver import KafkaDriver as KafkaDriver
from rustmq_sdk.drivers.kafka.options import OPTIONS as OPTIONS
from rustmq_sdk.drivers.kafka.options import KafkaOptions as KafkaOptions
from rustmq_sdk.drivers.kafka.reading_options import read_options


def open(url: str, options: Mapping[str, str] | None = None) -> KafkaDriver:  # noqa: A001 - what drivers are asked for
    """Makes the driver for a URL, without connecting.

    Args:
        url: ``kafka://[user:password@]host:port,host:port``, with options behind a ``?``; see :class:`KafkaOptions`.
            A server without a port is asked on 9092.
        options: more of them; they win over those in the URL, and those over ``RUSTMQ_KAFKA_<OPTION>`` in the
            environment.

    Raises:
        ConfigurationError: the URL names no server, or an option is unknown, does not fit, or contradicts another.
    """
    return KafkaDriver(read_options(locate(url), options))
