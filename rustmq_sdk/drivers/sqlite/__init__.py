"""The embedded log, in an SQLite file: ``sqlite:///relative.db`` or ``sqlite:////absolute.db``."""

from __future__ import annotations

from collections.abc import Mapping

from rustmq_sdk._environment import options_of
from rustmq_sdk._urls import locate
from rustmq_sdk.drivers.sqlite.copying import copy as copy
from rustmq_sdk.drivers.sqlite.driver import SqliteDriver as SqliteDriver
from rustmq_sdk.drivers.sqlite.integrity import integrity_check as integrity_check
from rustmq_sdk.drivers.sqlite.options import OPTIONS as OPTIONS
from rustmq_sdk.drivers.sqlite.options import SqliteOptions as SqliteOptions
from rustmq_sdk.drivers.sqlite.options import read_options, read_path


def open(url: str, options: Mapping[str, str] | None = None) -> SqliteDriver:  # noqa: A001 - what drivers are asked for
    """Makes the driver for a URL, without opening the file.

    Args:
        url: ``sqlite:///relative.db`` or ``sqlite:////absolute.db``, with options behind a ``?``; see
            :class:`SqliteOptions`. Those that are not there may stand in the environment: ``RUSTMQ_SQLITE_SYNC``.
        options: more of them; they win over those in the URL.

    Raises:
        ConfigurationError: the URL names no file, or an option is unknown or does not fit.
    """
    location = locate(url)
    with options_of("sqlite", location.options, options or {}) as given:
        return SqliteDriver(read_path(location), read_options(given))
