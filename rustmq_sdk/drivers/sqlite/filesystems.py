"""Whether a log lies on a network file system, where it must not."""

from __future__ import annotations

import logging
from pathlib import Path, PurePosixPath

from rustmq_sdk import _log

# fmt: off
NETWORK = frozenset({
    "9p", "afs", "beegfs", "ceph", "cifs", "fuse.ceph", "fuse.gcsfuse", "fuse.glusterfs", "fuse.s3fs", "fuse.sshfs",
    "gfs2", "gpfs", "lustre", "nfs", "nfs4", "ocfs2", "smb3", "smbfs", "vboxsf", "virtiofs",
})
# fmt: on
"""Types of Linux: of none of them can be said that all who have a file open share memory and locks."""

MOUNTS = Path("/proc/self/mountinfo")
"""What is mounted where; there is none but on Linux."""

_MOUNT_POINT = 4  # the field that says where


def warn_of_network(log: Path) -> None:
    """Says so in the log of the program; nothing is refused, since it may be the only machine that uses the file."""
    try:
        kind = kind_of(log, MOUNTS.read_text(encoding="utf-8", errors="surrogateescape"))
    except OSError:
        return

    if kind in NETWORK:
        _log.log(
            logging.WARNING,
            "network_file_system",
            "%s lies on a network file system (%s): used from two machines it will be damaged. Keep it on a local disk",
            log,
            kind,
        )


def kind_of(path: Path, mountinfo: str) -> str | None:
    """The type of the file system that has ``path``, by the text of ``/proc/self/mountinfo``; None: not known."""
    found, kind = PurePosixPath(), None
    for line in mountinfo.splitlines():
        before, separator, after = line.partition(" - ")
        fields = before.split(" ")
        if not separator or len(fields) <= _MOUNT_POINT:
            continue

        mount_point = PurePosixPath(_unescaped(fields[_MOUNT_POINT]))
        # Of two on the same mount point the later one hides the earlier.
        if path.is_relative_to(mount_point) and len(mount_point.parts) >= len(found.parts):
            found, kind = mount_point, after.split(" ")[0]

    return kind


def _unescaped(path: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        path = path.replace(code, character)

    return path
