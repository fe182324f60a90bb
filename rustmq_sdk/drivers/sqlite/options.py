"""What may stand after the ``?`` of a ``sqlite://`` URL, and which file the URL names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import unquote

from rustmq_sdk.errors import ConfigurationError
from rustmq_sdk.options import Location, Schema, about, locate

BUSY_TIMEOUT = 4.0
"""Below half of a lease of 10 s, so that two beats get through or fail, and are reported, before it ends."""


class Retention(Schema, frozen=True, kw_only=True):
    """How long a topic keeps its messages: what ``create_topic`` takes."""

    retention_age: Annotated[
        float | None, about("Seconds after which messages are deleted. None: they are kept for ever.", gt=0)
    ] = None
    retention_bytes: Annotated[
        int | None, about("Bytes of a partition beyond which its oldest messages are deleted. None: no limit.", gt=0)
    ] = None


class SqliteOptions(Retention, frozen=True, kw_only=True):
    """The options of the URL. ``retention_age`` and ``retention_bytes`` serve topics that have no setting of their own.

    Making one raises ``ConfigurationError`` for whatever does not fit, all of it in one error.
    """

    sync: Annotated[
        Literal["full", "normal"],
        about("Whether commits survive a power failure (full), or the end of the process only (normal, quicker)."),
    ] = "full"
    busy_timeout: Annotated[float, about("Seconds to wait for another process's write transaction.", ge=0)] = (
        BUSY_TIMEOUT
    )
    retention_overtakes: Annotated[
        bool, about("Whether retention deletes even what an active group has not settled.")
    ] = False
    check_crcs: Annotated[bool, about("Whether the checksum of every batch that is read is verified.")] = True
    wake: Annotated[
        Literal["auto", "poll"],
        about("How other processes' commits are noticed: auto has the system tell, poll looks every 8 ms."),
    ] = "auto"
    create: Annotated[bool, about("Whether the file is made where there is none, instead of refused.")] = True


OPTIONS: tuple[str, ...] = SqliteOptions.__struct_fields__
"""The names of the URL options."""


def check_against_lease(options: SqliteOptions, lease: float) -> None:
    """A wait for other writers that was made longer than half of a lease hides until its end that no beat gets through.

    The default serves every lease: it is the failure of a beat that makes a shorter one known, not its wait.

    Raises:
        ConfigurationError: ``busy_timeout`` was raised that far.
    """
    if options.busy_timeout > BUSY_TIMEOUT and options.busy_timeout >= lease / 2:
        raise ConfigurationError(
            f"one wait for another writer may take half of the lease ({lease:g} s) or more, and no heartbeat goes out "
            "meanwhile",
            field="busy_timeout",
            value=options.busy_timeout,
            fix=f"Set busy_timeout below {max(BUSY_TIMEOUT, lease / 2):g}, or lease above {2 * options.busy_timeout:g}",
        )


def file_of(given: str | os.PathLike[str]) -> Path:
    """The file that a path or a ``sqlite://`` URL names, as an absolute path; options of the URL mean nothing here.

    Raises:
        ConfigurationError: it is another driver's URL, or one that names no file.
    """
    if not isinstance(given, str) or "://" not in given:
        return Path(given).absolute()

    location = locate(given)
    if location.scheme != "sqlite":
        raise ConfigurationError(
            "only the embedded log is a file",
            field="url",
            value=location.shown,
            fix="Name a file, or write sqlite:///relative.db or sqlite:////absolute.db",
        )

    return read_path(location)


def read_path(location: Location) -> Path:
    """The file that is named by ``sqlite:///relative.db`` or ``sqlite:////absolute.db``, as an absolute path."""
    rest = location.address
    name = unquote(rest[1:])
    problem = None
    if not rest.startswith("/"):
        problem = "the part after sqlite:// is a file, not a host"
    elif not name:
        problem = "the URL names no file"
    elif name == ":memory:" or "\0" in name:
        problem = "the log lives in a file"

    if problem is not None:
        raise ConfigurationError(
            problem,
            field="url",
            value=location.shown,
            fix="Write sqlite:///relative.db or sqlite:////absolute.db; for a log without a file write memory://",
        )

    return Path(name).absolute()
