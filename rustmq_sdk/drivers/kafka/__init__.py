"""Apache Kafka: ``kafka://[user:password@]host:port,host:port``."""

from __future__ import annotations

from rustmq_sdk.drivers.kafka.driver import KafkaDriver as KafkaDriver
from rustmq_sdk.drivers.kafka.options import OPTIONS as OPTIONS
from rustmq_sdk.drivers.kafka.options import KafkaOptions as KafkaOptions
from rustmq_sdk.drivers.kafka.reading_options import read_options
from rustmq_sdk.options import Location, locate


def open(url: Location | str) -> KafkaDriver:  # noqa: A001 - what drivers are asked for
    """Makes the driver for a URL, without connecting.

    Args:
        url: ``kafka://[user:password@]host:port,host:port``, with options after a ``?``; see :class:`KafkaOptions`.
            A server without a port is asked on 9092. Options that are not there may stand in the environment:
            ``RUSTMQ_KAFKA_PASSWORD``.

    Raises:
        ConfigurationError: the URL names no server, or an option is unknown, does not fit, or contradicts another.
    """
    return KafkaDriver(read_options(locate(url)))
