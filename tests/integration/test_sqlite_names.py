"""A log that is known by several names: symbolic links are the log itself, hard links are refused.

What is tested of links takes several processes, and the loop of this one decides nothing: one loop will do.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

import rustmq_sdk
from rustmq_sdk.drivers import sqlite
from rustmq_sdk.drivers.sqlite import SqliteDriver, SqliteOptions, file_watch, housekeeping, integrity_check
from rustmq_sdk.drivers.sqlite.doorbell import doorbell_path
from rustmq_sdk.drivers.sqlite.file_watch import EventFileWatch
from rustmq_sdk.drivers.sqlite.retention import GROUP_ACTIVE_MS
from rustmq_sdk.drivers.sqlite.watcher import Watcher
from rustmq_sdk.errors import ConfigurationError, PermanentDriverError
from rustmq_sdk.slots import SourceRequest
from rustmq_sdk.testing.contracts.subscriber import log_member
from rustmq_sdk.testing.listener import RecordingListener
from rustmq_sdk.values import OutgoingMessage
from tests.integration.others import PATIENCE, TOPIC, TPS, Member, another, member_of, reasons, until

NEVER = 3600.0


@pytest.fixture(scope="class")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder / "log.db"


def by_link(path: Path) -> Path:
    link = path.parent.with_name("link.db")
    link.symlink_to(path)
    return link


def by_a_link_beside_it(path: Path) -> Path:
    link = path.with_name("link.db")
    link.symlink_to(path.name)
    return link


def by_folder(path: Path) -> Path:
    folder = path.parent.with_name("linked")
    folder.symlink_to(path.parent, target_is_directory=True)
    return folder / path.name


LINKS = pytest.mark.parametrize("linked", [by_link, by_a_link_beside_it, by_folder])


@asynccontextmanager
async def log_of(path: Path) -> AsyncIterator[SqliteDriver]:
    async with sqlite.open(f"sqlite:///{path}") as driver:
        await driver.admin().create_topic(TOPIC, len(TPS), {})
        yield driver


async def opened(path: Path) -> None:
    async with sqlite.open(f"sqlite:///{path}"):
        pass


@asynccontextmanager
async def reading(driver: SqliteDriver) -> AsyncIterator[Member]:
    request = SourceRequest(topics=[TOPIC], group=None, lease=1000, revoke_budget=1.0)
    async with log_member(driver, request, RecordingListener(committed=False), PATIENCE) as reader:
        await reader.owns(TPS)
        await until(lambda: driver._file().watcher._seen is not None)
        yield reader


@LINKS
async def test_a_killed_process_that_came_by_a_symbolic_link_is_expired_at_once(
    path: Path, linked: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with log_of(path) as driver:
        with another(linked(path), lease=1000) as other:
            await other.owns([0, 1, 2, 3])
            async with member_of(driver, lease=1000) as member:
                await member.listener.until(lambda: len(member.listener.assignments) == 2, PATIENCE)
                monkeypatch.setattr(Watcher, "look", lambda _: None)
                other.process.kill()
                await member.owns(TPS)
                assert reasons(member)[-1] == "expired_lock"


@LINKS
async def test_processes_that_came_by_different_links_wake_each_other(
    path: Path, linked: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nobody looks at the log by himself: who does not hear, hears nothing.
    monkeypatch.setattr(file_watch, "NET_SECONDS", NEVER)
    monkeypatch.setattr(EventFileWatch, "look_every", NEVER)
    # The dangling link makes the file that it leads to, as SQLite does.
    async with log_of(linked(path)) as driver, reading(driver) as reader:
        with another(path, lease=1000) as other:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(reader.collect, 1)
                await anyio.wait_all_tasks_blocked()
                assert await other.ask("send hello") == "sent"

        assert reader.payloads() == [b"hello"]
        assert sorted(each.name for each in path.parent.glob("*-wake")) == [doorbell_path(path).name]


@LINKS
async def test_retention_sees_that_a_member_is_there_that_came_by_a_symbolic_link(
    path: Path, linked: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "RETENTION_SECONDS", 0.0)
    clock = [1_700_000_000_000]
    options = SqliteOptions(retention_age=1)
    async with SqliteDriver(linked(path), options, wall_clock_ms=lambda: clock[0]) as driver:
        await driver.admin().create_topic(TOPIC, len(TPS), {})
        await driver.sink().append(TOPIC, 0, [OutgoingMessage(b"old")], sequence=None)
        async with member_of(driver, lease=1000) as member:
            await member.owns(TPS)
            clock[0] += GROUP_ACTIVE_MS + 1  # only the member's lock tells that its group is active
            for _ in range(2):  # what the first has deleted the second finds gone
                await driver.sink().append(TOPIC, 0, [OutgoingMessage(b"new")], sequence=None)

            assert (await member.subscription.start_offsets([TPS[0]]))[TPS[0]] == 0


def test_links_that_lead_in_a_circle_are_no_log(path: Path) -> None:
    path.symlink_to(path.with_name("other.db"))
    path.with_name("other.db").symlink_to(path)
    with pytest.raises(ConfigurationError, match="in a circle"):
        anyio.run(opened, path)


async def test_a_log_with_two_names_is_refused_by_either(path: Path) -> None:
    other = path.with_name("other.db")
    async with log_of(path):
        pass

    os.link(path, other)
    for name in (path, other):
        with pytest.raises(ConfigurationError, match=r"several names \(hard links\).*remove all names but") as refusal:
            await opened(name)

        assert str(name) in str(refusal.value)
        with pytest.raises(ConfigurationError, match="several names"):
            integrity_check(name)

        with pytest.raises(ConfigurationError, match="several names"):
            sqlite.copy(name, path.with_name("copy.db"))

    other.unlink()
    assert integrity_check(path) == ()


async def test_nothing_is_confirmed_once_the_log_has_another_name(path: Path) -> None:
    other = path.with_name("other.db")
    async with rustmq_sdk.Client(f"sqlite:///{path}") as client, client.producer() as producer:
        await producer.send(TOPIC, b"before")
        os.link(path, other)
        for _ in range(2):  # and not even once it is gone: somebody may have written under it
            with pytest.raises(PermanentDriverError, match=r"log\.db has got another name \(a hard link\)"):
                await producer.send(TOPIC, b"after")

            other.unlink(missing_ok=True)

    # Whichever of the names is kept has what was confirmed: there is no write-ahead log left beside the other.
    assert list(path.parent.iterdir()) == [path]
    async with rustmq_sdk.Client(f"sqlite:///{path}") as client, client.consumer(TOPIC) as consumer:
        assert (await consumer.receive(timeout=PATIENCE)).payload == b"before"


async def test_a_waiting_consumer_hears_of_another_name(path: Path) -> None:
    async with rustmq_sdk.Client(f"sqlite:///{path}") as client, client.producer() as producer:
        await producer.send(TOPIC, b"before")
        with pytest.raises(PermanentDriverError, match="has got another name"):  # noqa: PT012
            async with client.consumer(TOPIC) as consumer:
                await (await consumer.receive(timeout=PATIENCE)).ack()
                os.link(path, path.with_name("other.db"))
                await consumer.receive(timeout=PATIENCE)
