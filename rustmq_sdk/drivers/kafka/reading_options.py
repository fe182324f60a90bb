"""From a URL and the environment to options."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from rustmq_sdk._redaction import HIDDEN
from rustmq_sdk._settings import check_known, from_text
from rustmq_sdk._urls import Location
from rustmq_sdk.drivers.kafka.options import OPTIONS, KafkaOptions
from rustmq_sdk.errors import ConfigurationError

PREFIX = "RUSTMQ_KAFKA_"
"""Of variables of the environment: ``RUSTMQ_KAFKA_PASSWORD`` is the option ``password``."""
_PORT = 9092
_PORTS = range(1, 65536)
_FIX = "Write kafka://HOST:9092,HOST:9092, with USER:PASSWORD@ in front if there are users"


def read_options(
    location: Location, given: Mapping[str, str] | None = None, environment: Mapping[str, str] | None = None
) -> KafkaOptions:
    """The first of these that names an option wins: ``given``, the URL, the environment.

    Args:
        location: the URL.
        given: more options.
        environment: ``os.environ`` if None.

    Raises:
        ConfigurationError: the URL names no server, or an option is unknown, does not fit, or contradicts another.
    """
    user_info, at, hosts = location.bare.partition("://")[2].rpartition("@")
    options: dict[str, str] = {}
    for text in (_from_environment(os.environ if environment is None else environment), location.options, given or {}):
        for name in text:
            check_known(name, OPTIONS, value=HIDDEN)  # it may be a misspelt password

        options.update(text)

    if at:
        _add_credentials(options, user_info, location, given or {})

    read: dict[str, Any] = {name: from_text(KafkaOptions, name, text) for name, text in options.items()}
    return KafkaOptions(servers=_read_servers(hosts, location), **read)


def _from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    return {name.removeprefix(PREFIX).lower(): text for name, text in environment.items() if name.startswith(PREFIX)}


def _add_credentials(options: dict[str, str], user_info: str, location: Location, given: Mapping[str, str]) -> None:
    user, colon, password = user_info.partition(":")
    for name, value in (("user", user), *((("password", password),) if colon else ())):
        if name in location.options:
            raise ConfigurationError(
                f"{name} is given twice, before the @ and behind the ?", field="url", value=location.shown, fix=_FIX
            )

        if name not in given:
            options[name] = unquote(value)


def _read_servers(hosts: str, location: Location) -> tuple[str, ...]:
    return tuple(_read_server(host, location) for host in hosts.removesuffix("/").split(","))


def _read_server(text: str, location: Location) -> str:
    host, port = _divided(text)
    if not host or "/" in text:
        problem = "the URL names no server" if not text else f"{text!r} is no server"
        if "/" in text:
            problem = "behind the servers stands a path, and topics are not named in the URL"

        raise ConfigurationError(problem, field="url", value=location.shown, fix=_FIX)

    if not (port.isascii() and port.isdigit() and int(port) in _PORTS):
        raise ConfigurationError(
            f"what stands behind '{host}:' is no port", field="url", value=location.shown, fix=_FIX
        )

    return f"{host}:{port}"


def _divided(text: str) -> tuple[str, str]:
    """Host and port; an IPv6 address stands in brackets."""
    if text.startswith("["):
        host, bracket, rest = text.partition("]")
        return (host + bracket) if bracket else "", rest.removeprefix(":") or str(_PORT)

    host, _, port = text.partition(":")
    return host, port or str(_PORT)
