"""Copies of an embedded log, made while it is in use: what is in them, and that the two have nothing in common."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import anyio
import apsw
import pytest

import rustmq_sdk
from rustmq_sdk.drivers.sqlite import copy, integrity_check
from rustmq_sdk.errors import ConfigurationError, TransientDriverError
from rustmq_sdk.values import AckResult
from tests.integration.disks import small_disk
from tests.integration.others import PATIENCE

TOPIC, GROUP = "quakes", "alarm"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


async def send(client: rustmq_sdk.Client, *texts: str) -> None:
    async with client.producer() as producer:
        for text in texts:
            await producer.send(TOPIC, text)


async def rest(path: Path, count: int, lease: float = 30.0) -> list[str]:
    """What the group has left in this log."""
    found = []
    async with (
        rustmq_sdk.Client(f"sqlite:///{path}?create=false") as client,
        client.consumer(
            TOPIC, group=GROUP, lease=lease, commit_timeout=lease * 0.7, close_timeout=lease * 0.9
        ) as consumer,
    ):
        for _ in range(count):
            message = await consumer.receive(timeout=PATIENCE)
            found.append(message.text())
            assert await message.ack(durable=True) is AckResult.DURABLE

        assert not any((await consumer.get_lag()).values())

    return found


async def test_a_copy_of_a_log_in_use_has_its_messages_and_positions_and_no_members(path: Path) -> None:
    copied = path.with_name("copy.db")
    async with (
        rustmq_sdk.Client(f"sqlite:///{path}") as client,
        client.consumer(TOPIC, group=GROUP, lease=30.0) as consumer,
    ):
        await send(client, "one", "two", "three")
        for _ in range(2):
            await (await consumer.receive(timeout=PATIENCE)).ack(durable=True)

        await anyio.to_thread.run_sync(copy, path, copied)
        assert integrity_check(copied) == ()
        # Nobody waits for the lease of a member that is somewhere else.
        with anyio.fail_after(PATIENCE / 2):
            assert await rest(copied, 1) == ["three"]

        third = await consumer.receive(timeout=PATIENCE)
        assert await third.ack(durable=True) is AckResult.DURABLE, "the copy's consumer has taken nothing from us"
        await send(client, "four")
        assert (await consumer.receive(timeout=PATIENCE)).text() == "four"

    assert sorted(each.name for each in path.parent.iterdir()) == ["copy.db", "log.db"]


async def test_a_copy_made_while_it_is_written_is_one_moment_of_it(path: Path) -> None:
    async with rustmq_sdk.Client(f"sqlite:///{path}") as client, anyio.create_task_group() as tasks:

        async def write() -> None:
            async with client.producer() as producer:
                for number in range(100_000):
                    await producer.send(TOPIC, f"{number}")

        await send(client, "first")
        tasks.start_soon(write)
        for number in range(3):
            copied = path.with_name(f"copy-{number}.db")
            await anyio.to_thread.run_sync(copy, path, copied)
            assert integrity_check(copied) == ()

        tasks.cancel_scope.cancel()


def plain_copy(path: Path, copied: Path) -> None:
    """Not in this process: SQLite's locks would go when the file is closed."""
    for suffix in ("", "-wal"):
        subprocess.run(["cp", f"{path}{suffix}", f"{copied}{suffix}"], check=True, timeout=30)


def by_vacuum(path: Path, copied: Path) -> None:
    connection = apsw.Connection(str(path))
    connection.execute("VACUUM INTO ?", (str(copied),))
    connection.close()


@pytest.mark.parametrize("make", [plain_copy, by_vacuum])
async def test_copies_made_in_other_ways_can_be_used_beside_the_original(path: Path, make: object) -> None:
    """``cp`` of both files, while nobody writes. Their members' rows name locks that nobody has under that name."""
    assert callable(make)
    copied = path.with_name("copy.db")
    async with (
        rustmq_sdk.Client(f"sqlite:///{path}") as client,
        client.consumer(TOPIC, group=GROUP, lease=30.0) as consumer,
    ):
        await send(client, "one", "two")
        await (await consumer.receive(timeout=PATIENCE)).ack(durable=True)
        await anyio.to_thread.run_sync(make, path, copied)
        assert await rest(copied, 1, lease=1.0) == ["two"]
        assert await (await consumer.receive(timeout=PATIENCE)).ack(durable=True) is AckResult.DURABLE

    assert apsw.Connection(str(copied)).pragma("journal_mode") == "wal"


async def test_a_copy_replaces_nothing_and_leaves_nothing_half_made(path: Path) -> None:
    async with rustmq_sdk.Client(f"sqlite:///{path}") as client:
        await send(client, "x" * 3_000_000)

    path.with_name("taken.db").touch()
    with pytest.raises(ConfigurationError, match="there is a file of this name already") as refused:
        copy(path, path.with_name("taken.db"))

    assert "delete" not in str(refused.value)
    path.with_name("link.db").symlink_to(path)
    for itself in (path, path.with_name("link.db")):
        with pytest.raises(ConfigurationError, match="that is the log itself") as refused:
            copy(path, itself)

        assert "delete" not in str(refused.value)

    with pytest.raises(ConfigurationError, match="no such file"):
        copy(path.with_name("none.db"), path.with_name("copy.db"))

    with pytest.raises(ConfigurationError, match=r"^target='.*/nowhere/copy\.db': there is no such directory"):
        copy(path, path.with_name("nowhere") / "copy.db")

    with small_disk(path.with_name("small"), "1m") as disk:
        with pytest.raises(TransientDriverError, match=r"small/copy\.db-partial: the disk is full"):
            copy(path, disk.folder / "copy.db")

        assert list(disk.folder.iterdir()) == []


def test_the_command_copies(path: Path) -> None:
    async def make() -> None:
        async with rustmq_sdk.Client(f"sqlite:///{path}") as client:
            await send(client, "one")

    anyio.run(make)
    command = [sys.executable, "-m", "rustmq_sdk.cli", "backup", str(path), str(path.with_name("copy.db"))]
    assert subprocess.run(command, check=False, timeout=30).returncode == 0
    assert subprocess.run(command, check=False, timeout=30).returncode == 1, "it does not overwrite"
    assert anyio.run(rest, path.with_name("copy.db"), 1) == ["one"]
