"""The embedded log, in an SQLite file: ``sqlite:///relative.db`` or ``sqlite:////absolute.db``."""

from __future__ import annotations

from rustmq_sdk.drivers.sqlite.copying import copy as copy
from rustmq_sdk.drivers.sqlite.driver import SqliteDriver as SqliteDriver
from rustmq_sdk.drivers.sqlite.integrity import integrity_check as integrity_check
from rustmq_sdk.drivers.sqlite.options import OPTIONS as OPTIONS
from rustmq_sdk.drivers.sqlite.options import SqliteOptions as SqliteOptions
from rustmq_sdk.drivers.sqlite.options import read_path
from rustmq_sdk.options import Location, locate, read_options


def open(url: Location | str) -> SqliteDriver:  # noqa: A001 - what drivers are asked for
    """Makes the driver for a URL, without opening the file.

    Args:
        url: ``sqlite:///relative.db`` or ``sqlite:////absolute.db``, with options after a ``?``; see
            :class:`SqliteOptions`. Those that are not there may stand in the environment: ``RUSTMQ_SQLITE_SYNC``.

    Raises:
        ConfigurationError: the URL names no file, or an option is unknown or does not fit.
    """
    location = locate(url)
    return SqliteDriver(read_path(location), read_options(SqliteOptions, location))
