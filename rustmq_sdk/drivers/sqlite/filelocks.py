"""``flock`` on files beside the log: never on the log itself, whose POSIX locks a ``close()`` would drop.

A ``flock`` belongs to the open file description, not to the process: it is free again when the last descriptor is
closed, and the kernel does that for a process that ends, however it ends. Where the system or the file system has no
such locks, all of this answers that nothing is locked by us.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

if sys.platform != "win32":
    import fcntl

AVAILABLE = sys.platform != "win32"
"""Whether there are such locks at all."""


def lock_shared(fd: int) -> bool:
    """Locks beside others who do the same. False if somebody has it alone, or if there are no locks here."""
    return _lock(fd, "LOCK_SH")


def lock_alone(fd: int) -> bool:
    """Locks against everybody else. False if anybody else has it, or if there are no locks here."""
    return _lock(fd, "LOCK_EX")


def is_at(path: Path, status: os.stat_result) -> bool:
    """Whether this file is still the one that is found under its name."""
    try:
        found = path.stat()
    except OSError:
        return False

    return (found.st_dev, found.st_ino) == (status.st_dev, status.st_ino)


def copy_permissions(fd: int, log: Path) -> None:
    """Gives a file of ours the permissions of the log, as SQLite does: other users who have the log use it as well."""
    with suppress(OSError):  # it is another user's, or there is no log yet
        mode = log.stat().st_mode & 0o666
        if os.fstat(fd).st_mode & 0o777 != mode:
            os.fchmod(fd, mode)


def _lock(fd: int, how: str) -> bool:
    if sys.platform == "win32":
        return False

    try:
        fcntl.flock(fd, getattr(fcntl, how) | fcntl.LOCK_NB)
    except OSError:  # taken; or ENOLCK, EOPNOTSUPP, EINVAL, ENOSYS: a file system without them
        return False

    return True
