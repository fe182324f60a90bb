"""Real disks that are small or break; made by root, and nobody else can have them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class Disk:
    """A mounted disk.

    Attributes:
        folder: where it is.
        device: name of its block device; empty for one in memory.
    """

    def __init__(self, folder: Path, device: str = "") -> None:
        self.folder = folder
        self.device = device
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        """Takes all the room that is left."""
        with self._ballast.open("ab", buffering=0) as file:
            for size in (1024 * 1024, 4096, 1):
                try:
                    while file.write(bytes(size)) == size:
                        pass
                except OSError:
                    continue

    def free(self) -> None:
        """Gives it back."""
        self._ballast.unlink()

    def break_down(self) -> None:
        """The system finds an error on the disk and makes it read-only at once, whoever has files open."""
        Path(f"/sys/fs/ext4/{self.device}/trigger_fs_error").write_text("on purpose", encoding="ascii")


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Disk]:
    """A disk in memory; ``size`` as ``mount`` takes it."""
    with _mounted(folder, "-t", "tmpfs", "-o", f"size={size}", "tmpfs"):
        yield Disk(folder)


@contextmanager
def breakable_disk(folder: Path) -> Iterator[Disk]:
    """A disk with a file system that can be told that it has an error."""
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("there is no mkfs.ext4 to make a disk with")

    image = folder.with_suffix(".image")
    with image.open("wb") as file:
        file.truncate(16 * 1024 * 1024)

    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True, timeout=30)
    with _mounted(folder, "-o", "loop,errors=remount-ro", str(image)):
        source = subprocess.run(
            ["findmnt", "-n", "-o", "SOURCE", folder], check=True, capture_output=True, text=True, timeout=30
        )
        device = Path(source.stdout.strip()).name
        if not Path(f"/sys/fs/ext4/{device}/trigger_fs_error").exists():
            pytest.skip("this kernel's ext4 cannot be told that it has an error")

        yield Disk(folder, device)


@contextmanager
def _mounted(folder: Path, *what: str) -> Iterator[None]:
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("only root of a Linux system can mount a disk")

    folder.mkdir()
    mount = subprocess.run(["mount", *what, folder], check=False, capture_output=True, text=True, timeout=30)
    if mount.returncode:
        pytest.skip(f"root must not mount a disk here: {mount.stderr.strip()}")

    try:
        yield
    finally:
        # Lazily: a test that fails may leave files open.
        subprocess.run(["umount", "--lazy", folder], check=True, timeout=30)
