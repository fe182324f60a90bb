"""Passwords that nobody sees, and the TLS context."""

from __future__ import annotations

import logging
import ssl
from typing import TYPE_CHECKING

from rustmq_sdk.errors import ConfigurationError

if TYPE_CHECKING:
    from rustmq_sdk.drivers.kafka.options import KafkaOptions


class Secret(str):
    """Text that shows itself to nobody: in an error, a log line, a traceback's locals or a debugger it is ``***``.

    What works on characters, as ``encode()`` and ``join()`` do, works as ever; that is how clients use a password.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Secret:
        # By its characters: str() of a Secret is what it shows.
        return super().__new__(cls, "".join(text))

    def __repr__(self) -> str:
        return "'***'"

    def __str__(self) -> str:
        return "***"

    def __format__(self, spec: str) -> str:
        return format("***", spec)


def tls_context(options: KafkaOptions) -> ssl.SSLContext:
    """The context for connections with TLS. Reads the files that the options name.

    Raises:
        ConfigurationError: a file cannot be read or is no certificate, or the key does not fit.
    """
    try:
        context = ssl.create_default_context(cafile=options.ca)
    except OSError as error:  # ssl.SSLError is one
        raise _refused(error, "ca", options.ca, "Name a file with the certificates of the authority, PEM") from error

    context.check_hostname = options.check_hostname
    if options.certificate is not None:
        _load_own(context, options)

    return context


def _load_own(context: ssl.SSLContext, options: KafkaOptions) -> None:
    assert options.certificate is not None
    # With an empty password OpenSSL fails for an encrypted key. Without any it would ask on the terminal, and wait.
    password = "" if options.key_password is None else options.key_password
    try:
        context.load_cert_chain(options.certificate, options.key, password)
    except OSError as error:
        fix = "Name a file with the certificate and one with its key, PEM; key_password if it is encrypted"
        raise _refused(error, "certificate", options.certificate, fix) from error


def _refused(error: OSError, field: str, value: str | None, fix: str) -> ConfigurationError:
    return ConfigurationError(f"cannot be used: {error}", field=field, value=value, fix=fix)


class _HidesCredentials(logging.Filter):
    """Takes what authenticates us out of the lines in which aiokafka logs each request and each answer, at DEBUG.

    With SASL PLAIN that is the password itself, with SCRAM what it can be guessed from.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple("(hidden)" if _authenticates(argument) else argument for argument in record.args)

        return True


def _authenticates(argument: object) -> bool:
    return type(argument).__name__.startswith("SaslAuthenticate")


_hides_credentials = _HidesCredentials()


def hide_credentials() -> None:
    """Keeps credentials out of the client's log. More than once is fine."""
    logging.getLogger("aiokafka.conn").addFilter(_hides_credentials)
