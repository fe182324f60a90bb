"""From a URL and the environment to options."""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from urllib.parse import unquote

from rustmq_sdk.drivers.kafka.options import KafkaOptions
from rustmq_sdk.errors import ConfigurationError
from rustmq_sdk.options import Location
from rustmq_sdk.options import read_options as read

_PORT = 9092
_PORTS = range(1, 65536)
_FIX = "Write kafka://HOST:9092,HOST:9092, with USER:PASSWORD@ in front if there are users"


def read_options(location: Location) -> KafkaOptions:
    """What the URL says wins over the environment: before the ``@`` as well as after the ``?``.

    Raises:
        ConfigurationError: the URL names no server, or an option is unknown, does not fit, or contradicts another.
    """
    user_info, at, hosts = location.address.rpartition("@")
    credentials = _read_credentials(user_info, location) if at else {}
    return read(KafkaOptions, location, {"servers": _read_servers(hosts, location), **credentials})


def _read_credentials(text: str, location: Location) -> dict[str, str]:
    user, colon, password = text.partition(":")
    credentials = {"user": unquote(user), "password": unquote(password)} if colon else {"user": unquote(user)}
    for name in credentials:
        if name in location.options:
            raise ConfigurationError(
                f"{name} is given twice, before the @ and after the ?", field="url", value=location.shown, fix=_FIX
            )

    return credentials


def _read_servers(hosts: str, location: Location) -> tuple[str, ...]:
    return tuple(_read_server(host, location) for host in hosts.removesuffix("/").split(","))


def _read_server(text: str, location: Location) -> str:
    host, port = _divided(text)
    if not _is_host(host) or "/" in text:
        # Not what stands there: it may be an option, after something else than a "?".
        problem = "what stands for a server is no name of a host and no address" if text else "the URL names no server"
        if "/" in text:
            problem = "after the servers stands a path, and topics are not named in the URL"

        raise ConfigurationError(problem, field="url", value=location.shown, fix=_FIX)

    if not (port.isascii() and port.isdigit() and int(port) in _PORTS):
        raise ConfigurationError(f"what stands after '{host}:' is no port", field="url", value=location.shown, fix=_FIX)

    return f"{host}:{port}"


_NAME = re.compile(r"[\w\-]+(\.[\w\-]+)*\.?")
"""Of a host, also with letters of any alphabet, and with the underscores that containers have in theirs."""


def _is_host(text: str) -> bool:
    if not text.startswith("["):
        return _NAME.fullmatch(text) is not None

    try:
        IPv6Address(text[1:-1])
    except ValueError:
        return False

    return True


def _divided(text: str) -> tuple[str, str]:
    """Host and port; an IPv6 address stands in brackets."""
    if text.startswith("["):
        host, bracket, rest = text.partition("]")
        return (host + bracket) if bracket else "", rest.removeprefix(":") or str(_PORT)

    host, _, port = text.partition(":")
    return host, port or str(_PORT)
