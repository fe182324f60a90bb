"""Copying a log that is in use: ``rustmq backup events.db events-copy.db``."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import apsw

from rustmq_sdk.drivers.sqlite.database import BusyHandler, Connection, connect
from rustmq_sdk.drivers.sqlite.failures import translate, translated
from rustmq_sdk.drivers.sqlite.options import SqliteOptions, file_of
from rustmq_sdk.errors import ConfigurationError

_LEFT = """
DELETE FROM member;
UPDATE claim SET owner = NULL, wanted_by = NULL, freed = 'left' WHERE owner IS NOT NULL;
"""
_OF_THE_TARGET = (apsw.CantOpenError, apsw.FullError, apsw.PermissionsError, apsw.ReadOnlyError)
"""When the original is open already and is read only, these are about the file that is being written."""


def copy(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Makes another log of what is in one at this moment; programs that use it go on meanwhile.

    The copy has the messages and the committed positions, and no members: the groups' consumers are with the original.
    From then on the two have nothing to do with each other. It is as small as it can be, and whole or not there. The
    write-ahead log of the original grows as long as the copying takes.

    Args:
        source: the path of a log, or its ``sqlite://`` URL.
        target: the file to make, likewise.

    Raises:
        ConfigurationError: ``source`` is not a log, or ``target`` exists or is in no directory.
        PermanentDriverError: ``source`` is damaged, or ``target`` cannot be made.
        TransientDriverError: the disk is full.
    """
    original, copied = file_of(source), file_of(target)
    if not copied.parent.is_dir():
        raise ConfigurationError(
            "there is no such directory",
            field="target",
            value=str(copied),
            fix=f"Make {copied.parent}, or name a file elsewhere",
        )

    if copied.exists():
        # No word of deleting: it may be the only copy of something, or the log of which this was to be one.
        raise ConfigurationError(
            "that is the log itself" if _same(original, copied) else "there is a file of this name already",
            field="target",
            value=str(copied),
            fix="Name the copy after the log, by a name that no file has",
        )

    partial = copied.with_name(f"{copied.name}-partial")
    partial.unlink(missing_ok=True)  # of a copying that was killed
    try:
        with translated(original, slot="source", operation="copy"), _connected(original) as connection:
            _write(connection, partial)

        # VACUUM INTO leaves the syncing to others: this transaction and its checkpoint do it.
        with translated(copied, slot="source", operation="copy"), _connected(partial) as connection, connection:
            connection.execute(_LEFT)

        partial.rename(copied)
        _sync(copied.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _same(original: Path, copied: Path) -> bool:
    return original.exists() and original.samefile(copied)


def _write(connection: Connection, target: Path) -> None:
    try:
        connection.execute("VACUUM INTO ?", (str(target),))
    except _OF_THE_TARGET as error:
        raise translate(error, target, slot="source", operation="copy") from error


@contextmanager
def _connected(path: Path) -> Iterator[Connection]:
    options = SqliteOptions(create=False)
    with closing(connect(path, options, BusyHandler(options.busy_timeout, threading.Event()))) as connection:
        yield connection


def _sync(folder: Path) -> None:
    """Makes the name durable, where a folder can be opened for it."""
    if sys.platform != "win32":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
