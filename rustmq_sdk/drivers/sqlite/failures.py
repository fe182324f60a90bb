"""What SQLite reports, in the words of this package: the one place where apsw's exceptions are translated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw

from rustmq_sdk._operations import words_for
from rustmq_sdk._threads import ThreadClosed, ThreadForked
from rustmq_sdk.errors import ConsumerStateError, PermanentDriverError, RustMQError, TransientDriverError

BUSY = (apsw.BusyError, apsw.LockedError)
LOST_AT_COMMIT = (apsw.IOError, apsw.FullError)
"""After these a COMMIT may or may not be in the write-ahead log."""


class CommitFailed(Exception):
    """COMMIT reported an error of the disk: the transaction may become durable or not."""


class FileGone(Exception):
    """The file, or one of the two beside it, is not what its name leads to any more, or is known by another name as
    well; says which, and what to do.
    """


_TRANSIENT: dict[type[apsw.Error], tuple[str, float | None]] = {
    apsw.BusyError: (
        "another process has been writing for longer than busy_timeout. Find a long write transaction, or raise it",
        0.1,
    ),
    apsw.LockedError: ("another connection of this process holds the lock. Try again", 0.1),
    apsw.FullError: ("the disk is full. Free space, or lower retention_age or retention_bytes", 1.0),
    apsw.IOError: ("the file could not be read or written. Look at the disk and the system's log", 1.0),
    apsw.InterruptError: ("interrupted, because the client is being closed", None),
    apsw.NoMemError: ("SQLite ran out of memory", 1.0),
    apsw.SchemaChangeError: ("another process changed the tables. Try again", 0.1),
    apsw.ProtocolError: ("the locks of the file are contended or not supported. Keep it on a local disk", 1.0),
}
_PERMANENT: dict[type[apsw.Error], str] = {
    apsw.ReadOnlyError: "the file, its directory or the disk is read-only. Make them writable for this user; if the "
    "system has made the disk read-only by itself, it has failed: look at the system's log",
    apsw.PermissionsError: "access was refused. Make the file and its directory readable and writable for this user",
    apsw.CorruptError: "the file is damaged. See what is wrong with it (rustmq check FILE, or python -m "
    "rustmq_sdk.drivers.sqlite FILE) and restore a backup",
    apsw.NotADBError: "not an SQLite database, or its header is damaged. Name another file, or restore a backup",
    apsw.CantOpenError: "the file cannot be opened. Its directory must exist and be writable for this user, the disk "
    "must have room for two more files (df -i), and this process may need more descriptors (ulimit -n)",
    apsw.TooBigError: "a message is larger than SQLite can hold (1 GB). Keep it elsewhere and send its name",
}


def translate(error: apsw.Error, path: Path, *, slot: str, operation: str) -> RustMQError:
    """The error to raise instead of one of apsw's; it names the file and says what to do."""
    for kind, (advice, retry_after) in _TRANSIENT.items():
        if isinstance(error, kind):
            problem = f"{path}: {advice} ({error})"
            return TransientDriverError(problem, slot=slot, operation=operation, retry_after=retry_after)

    for kind, advice in _PERMANENT.items():
        if isinstance(error, kind):
            return PermanentDriverError(f"{path}: {advice} ({error})", slot=slot, operation=operation)

    problem = f"{path}: SQLite refused the call: {type(error).__name__}: {error}"
    return PermanentDriverError(problem, slot=slot, operation=operation)


@contextmanager
def translated(path: Path, *, slot: str, operation: str) -> Iterator[None]:
    """Translates what the block raises."""
    try:
        yield
    except apsw.Error as error:
        raise translate(error, path, slot=slot, operation=operation) from error
    except FileGone as error:
        raise PermanentDriverError(str(error), slot=slot, operation=operation) from error
    except ThreadForked as error:
        raise ConsumerStateError(
            f"{words_for(slot, operation)}: the client of {path} belongs to the process that this one was forked from. "
            "Open a Client of its own in each process"
        ) from error
    except ThreadClosed as error:
        raise ConsumerStateError(
            f"{words_for(slot, operation)}: the client of {path} is closed. Move the call inside its `async with` block"
        ) from error
