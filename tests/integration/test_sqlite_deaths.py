"""Members that die, are killed, or are stopped, in processes of their own: who is expired, when, and why.

Two processes take part in each test, and the loop of this one decides nothing: one loop will do.
"""

from __future__ import annotations

import itertools
import math
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from rustmq_sdk.drivers import sqlite
from rustmq_sdk.drivers.sqlite import SqliteDriver, claims
from rustmq_sdk.drivers.sqlite.member_lock import lock_path
from rustmq_sdk.drivers.sqlite.watcher import Watcher
from rustmq_sdk.errors import TransientDriverError
from rustmq_sdk.values import Checkpoint
from tests.integration.others import PATIENCE, TOPIC, TPS, Other, another, member_of, reasons, until


@pytest.fixture(scope="class")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


@pytest.fixture
async def driver(path: Path) -> AsyncIterator[SqliteDriver]:
    async with sqlite.open(f"sqlite:///{path}") as driver:
        await driver.admin().create_topic(TOPIC, len(TPS), {})
        yield driver


def locks(path: Path) -> list[Path]:
    return list(path.parent.glob("log.db-member-*"))


async def share(first: Other, second: Other) -> None:
    with anyio.fail_after(PATIENCE):
        while True:
            owned = [(await other.ask("owned")).split() for other in (first, second)]
            if [len(numbers) for numbers in owned] == [2, 2] and len({*owned[0], *owned[1]}) == 4:
                return


@pytest.mark.parametrize("wake", ["auto", "poll"])
async def test_a_killed_process_is_expired_long_before_its_lease_is_over(
    path: Path, wake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sqlite.open(f"sqlite:///{path}?wake={wake}") as driver:
        await driver.admin().create_topic(TOPIC, len(TPS), {})
        with another(path, lease=1000) as other:
            await other.owns([0, 1, 2, 3])
            async with member_of(driver, lease=1000) as member:
                await member.listener.until(lambda: len(member.listener.assignments) == 2, PATIENCE)
                monkeypatch.setattr(Watcher, "look", lambda _: None)
                await anyio.sleep(0.3)  # nobody looks at the group any more, for want of news: something has to tell
                other.process.kill()
                await member.owns(TPS)
                assert reasons(member)[-1] == "expired_lock"
                await until(lambda: len(locks(path)) == 1)  # whoever expires a member removes its file

        assert not locks(path)


async def test_a_process_that_was_killed_before_we_joined_is_expired_as_well(driver: SqliteDriver, path: Path) -> None:
    with another(path, lease=1000) as other:
        await other.owns([0, 1, 2, 3])
        other.process.kill()

    async with member_of(driver, lease=1000) as member:
        await member.owns(TPS)


async def test_a_child_that_was_forked_does_not_keep_a_killed_member_in_its_group(
    driver: SqliteDriver, path: Path
) -> None:
    with another(path, lease=1000) as other:
        await other.owns([0, 1, 2, 3])
        child = int(await other.ask("fork"))
        try:
            async with member_of(driver, lease=1000) as member:
                await member.listener.until(lambda: len(member.listener.assignments) == 2, PATIENCE)
                other.process.kill()
                await member.owns(TPS)
        finally:
            os.kill(child, signal.SIGKILL)


@pytest.mark.slow
async def test_a_stopped_process_is_expired_and_fenced(driver: SqliteDriver, path: Path) -> None:
    with another(path, lease=1.0) as other:
        await other.owns([0, 1, 2, 3])
        other.process.send_signal(signal.SIGSTOP)
        async with member_of(driver, lease=1.0) as member:
            await member.owns(TPS)
            assert reasons(member)[-1] in {"joined", "expired_beat"}
            await member.subscription.commit({each: Checkpoint(3) for each in member.wanted})
            other.process.send_signal(signal.SIGCONT)
            assert await other.ask("commit 9") == "fenced"
            await member.listener.until(lambda: len(member.listener.assignments) == 2, PATIENCE)
            assert "expired" in (await other.ask("why")).split()
            moved = await member.subscription.committed(TPS)
            assert moved == dict.fromkeys(TPS, Checkpoint(3))


@pytest.mark.slow
async def test_a_process_without_a_lock_is_expired_when_its_beat_stands_still(driver: SqliteDriver, path: Path) -> None:
    with another(path, lease=1.0) as other:
        await other.owns([0, 1, 2, 3])
        for lock in locks(path):  # somebody tidies up: whether a process lives cannot be told by its file any more
            lock.unlink()

        other.process.kill()
        async with member_of(driver, lease=1.0) as member:
            await member.listener.until(lambda: bool(member.listener.assignments), PATIENCE)
            assert "expired_lock" not in reasons(member)
            await member.owns(TPS)


@pytest.mark.slow
async def test_who_was_stopped_himself_starts_counting_again(driver: SqliteDriver, path: Path) -> None:
    with another(path, lease=1.0) as first, another(path, lease=1.0) as second:
        # Whoever wakes up a lease after the first is rightly expired: where this machine itself stood still for so long
        # in between, nothing was shown, and all is tried again.
        woke_up = -math.inf
        while time.monotonic() - woke_up > 0.7:
            await share(first, second)
            before = [await other.ask("me") for other in (first, second)]
            for other in (first, second):
                other.process.send_signal(signal.SIGSTOP)

            await anyio.sleep(1.5)  # real processes, real leases
            woke_up = time.monotonic()
            first.process.send_signal(signal.SIGCONT)
            await first.ask("owned")
            await anyio.sleep(0.3)
            second.process.send_signal(signal.SIGCONT)
            await second.ask("owned")

        await share(first, second)
        assert [await other.ask("me") for other in (first, second)] == before, "nobody was expired"


@pytest.mark.slow
async def test_a_wall_clock_that_jumps_expires_nobody(path: Path) -> None:
    jumps = itertools.cycle([0, 10**12, -(10**12), 1])
    async with (
        SqliteDriver(path, wall_clock_ms=lambda: 10**13 + next(jumps)) as first,
        SqliteDriver(path, wall_clock_ms=lambda: 10**13 - next(jumps)) as second,
    ):
        await first.admin().create_topic(TOPIC, len(TPS), {})
        async with member_of(first, lease=1.0) as one, member_of(second, lease=1.0) as other:
            for member in (one, other):
                await member.listener.until(lambda member=member: len(member.listener.assignments) == 2, PATIENCE)  # type: ignore[misc]

            await anyio.sleep(2.5)  # real heartbeats
            assert "expired" not in reasons(one) + reasons(other)
            assert all(len(member.listener.assignments) == 2 for member in (one, other))


async def test_files_that_a_killed_group_has_left_behind_are_swept_by_whoever_joins(
    driver: SqliteDriver, path: Path
) -> None:
    stale = lock_path(path, b"nobody")
    stale.touch()
    async with member_of(driver) as member:
        await member.owns(TPS)
        assert len(locks(path)) == 1
        assert not stale.exists()


async def test_who_could_not_leave_is_expired_at_once(driver: SqliteDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise TransientDriverError("the disk is full", slot="source", operation="leave")

    async with member_of(driver, lease=1000) as member:
        await member.owns(TPS)
        monkeypatch.setattr(claims, "leave", fails)

    monkeypatch.undo()
    async with member_of(driver, lease=1000) as member:
        await member.owns(TPS)
