"""What may stand behind the ``?`` of a ``sqlite://`` URL, and which file the URL names."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints
from urllib.parse import unquote

import msgspec

from rustmq_sdk._redaction import HIDDEN
from rustmq_sdk._urls import Location, locate
from rustmq_sdk.config import check_known
from rustmq_sdk.errors import ConfigurationError

Positive = Annotated[float, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(gt=0)]

BUSY_TIMEOUT = 4.0
"""Below half of a lease of 10 s, so that two beats get through or fail, and are reported, before it ends."""


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """How long a topic keeps its messages; None keeps them for ever."""

    retention_age: Annotated[Positive | None, msgspec.Meta(description="Seconds; older messages go.")] = None
    retention_bytes: Annotated[Count | None, msgspec.Meta(description="A partition's size; the oldest go.")] = None


class SqliteOptions(Retention, frozen=True, kw_only=True):
    """The options of the URL. ``retention_age`` and ``retention_bytes`` serve topics that have no setting of their own.

    Attributes:
        sync: ``full`` (the default) survives a power failure; ``normal`` survives a crash of the process, and may lose
            the last appends and commits when the machine loses power.
        busy_timeout: seconds to wait for another process's write transaction.
        retention_overtakes: delete by age and size even what an active group has not settled yet.
        check_crcs: verify the checksum of every batch that is read, as Kafka's ``check.crcs`` does.
        wake: how to learn of other processes' commits. ``auto`` (the default) has the operating system tell where it
            can; ``poll`` looks every 8 ms, for file systems whose events do not arrive.
        create: make the file where there is none; False refuses instead.
    """

    sync: Annotated[Literal["full", "normal"], msgspec.Meta(description="Write full or normal.")] = "full"
    busy_timeout: Annotated[float, msgspec.Meta(ge=0, description="Seconds, 0 or more.")] = BUSY_TIMEOUT
    retention_overtakes: Annotated[bool, msgspec.Meta(description="Write true or false.")] = False
    check_crcs: Annotated[bool, msgspec.Meta(description="Write true or false.")] = True
    wake: Annotated[Literal["auto", "poll"], msgspec.Meta(description="Write auto or poll.")] = "auto"
    create: Annotated[bool, msgspec.Meta(description="Write true or false.")] = True


OPTIONS: tuple[str, ...] = SqliteOptions.__struct_fields__
"""The names of the URL options."""

TOPIC_SETTINGS: tuple[str, ...] = Retention.__struct_fields__
"""The settings ``create_topic`` takes."""


def read_options(given: Mapping[str, Any]) -> SqliteOptions:
    """Raises ``ConfigurationError`` for an unknown name or a value that does not fit."""
    for name in given:
        check_known(name, OPTIONS, value=HIDDEN)

    return SqliteOptions(**_checked(SqliteOptions, given))


def read_settings(given: Mapping[str, Any]) -> Retention:
    """The settings of one topic; raises ``ConfigurationError`` as :func:`read_options` does."""
    return Retention(**_checked(Retention, given))


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


def _checked(schema: type[Retention], given: Mapping[str, Any]) -> dict[str, Any]:
    hints = get_type_hints(schema, include_extras=True)
    checked = {}
    for name, value in given.items():
        check_known(name, schema.__struct_fields__, value=value)
        try:
            checked[name] = msgspec.convert(value, hints[name], strict=not isinstance(value, str))
        except msgspec.ValidationError as error:
            raise _refusal(name, value, hints[name], error) from error

    return checked


def _refusal(name: str, value: object, hint: Any, error: msgspec.ValidationError) -> ConfigurationError:
    words = get_args(hint.__origin__) if get_origin(hint.__origin__) is Literal else ()
    nearest = difflib.get_close_matches(str(value).lower(), words, n=1, cutoff=0.5)
    expected = f"expected {' or '.join(map(repr, words))}" if words else str(error).replace("Expected", "expected", 1)
    return ConfigurationError(
        expected if ", got" in expected else f"{expected}, got {value!r}",
        field=name,
        value=value,
        fix=f"Did you mean {nearest[0]!r}?" if nearest else hint.__metadata__[0].description,
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
    """The file behind ``sqlite:///relative.db`` or ``sqlite:////absolute.db``, as an absolute path."""
    rest = location.bare.partition("://")[2]
    name = unquote(rest[1:])
    problem = None
    if not rest.startswith("/"):
        problem = "the part behind sqlite:// is a file, not a host"
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
