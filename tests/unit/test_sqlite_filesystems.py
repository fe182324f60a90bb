"""Which file system a log lies on, and what is said where that is a network's."""

from __future__ import annotations

from pathlib import Path

import pytest

from rustmq_sdk.drivers import sqlite
from rustmq_sdk.drivers.sqlite import filesystems
from rustmq_sdk.drivers.sqlite.filesystems import kind_of

MOUNTS = r"""
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
23 22 0:21 / /proc rw - proc proc rw
40 22 0:50 / /mnt/team rw,relatime shared:2 master:3 - nfs4 server:/export rw,vers=4.2
41 40 0:51 / /mnt/team/local rw - tmpfs tmpfs rw
42 22 0:52 / /mnt/My\040Files rw - cifs //server/share rw
43 22 8:1 / /data rw - nfs server:/old rw
44 43 8:2 / /data rw - xfs /dev/sdb1 rw
a line of another kind
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/me/events.db", "ext4"),
        ("/mnt/team/events.db", "nfs4"),
        ("/mnt/teams/events.db", "ext4"),
        ("/mnt/team/local/events.db", "tmpfs"),
        ("/mnt/My Files/events.db", "cifs"),
        ("/data/events.db", "xfs"),
    ],
)
def test_the_innermost_and_latest_mount_says_the_kind(path: str, kind: str) -> None:
    assert kind_of(Path(path), MOUNTS) == kind


def test_nothing_is_known_without_mounts() -> None:
    assert kind_of(Path("/events.db"), "") is None


@pytest.mark.parametrize(("kind", "warned"), [("nfs4", True), ("ext4", False)])
async def test_a_log_on_a_network_file_system_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: str, warned: bool
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"1 0 0:1 / / rw - {kind} somewhere rw\n", encoding="ascii")
    monkeypatch.setattr(filesystems, "MOUNTS", mounts)
    async with sqlite.open(f"sqlite:///{tmp_path}/log.db"):
        pass

    assert [record.event for record in caplog.records] == ["network_file_system"] * warned  # type: ignore[attr-defined]


async def test_a_system_without_a_list_of_mounts_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(filesystems, "MOUNTS", tmp_path / "none")
    async with sqlite.open(f"sqlite:///{tmp_path}/log.db"):
        pass

    assert not caplog.records
