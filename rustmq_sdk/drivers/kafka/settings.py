"""From our options to the keyword arguments of aiokafka's clients."""

from __future__ import annotations

from typing import Any

from rustmq_sdk.drivers.kafka.options import KafkaOptions
from rustmq_sdk.drivers.kafka.security import hide_credentials, tls_context


def client_settings(options: KafkaOptions) -> dict[str, Any]:
    """What ``AIOKafkaConsumer``, ``AIOKafkaProducer``, ``AIOKafkaAdminClient`` and ``AIOKafkaClient`` have in common.

    Reads the files that the options name. Keeps credentials out of aiokafka's log.

    Raises:
        ConfigurationError: a file cannot be used.
    """
    hide_credentials()
    settings: dict[str, Any] = {"bootstrap_servers": list(options.servers), "client_id": options.client_id}
    settings["security_protocol"] = _PROTOCOLS[options.sasl is not None, options.tls]
    if options.tls:
        settings["ssl_context"] = tls_context(options)

    if options.sasl is not None:
        settings["sasl_mechanism"] = options.sasl
        settings["sasl_plain_username"] = options.user
        settings["sasl_plain_password"] = options.password

    return settings


_PROTOCOLS = {
    (False, False): "PLAINTEXT",
    (False, True): "SSL",
    (True, False): "SASL_PLAINTEXT",
    (True, True): "SASL_SSL",
}
"""By whether there are SASL and TLS."""
