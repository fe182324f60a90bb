"""Who waits hears of another process's commit: by the file beside the log, by polling, and by the net under both.

What is tested here happens on threads, before a loop is told: one loop will do. ``test_sqlite_groups`` has both.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import anyio
import apsw
import pytest

from rustmq_sdk.drivers import sqlite
from rustmq_sdk.drivers.sqlite import SqliteDriver, file_watch, watcher
from rustmq_sdk.drivers.sqlite.broadcast import Changed
from rustmq_sdk.drivers.sqlite.doorbell import doorbell_path
from rustmq_sdk.drivers.sqlite.file_watch import EventFileWatch, PollingFileWatch
from rustmq_sdk.slots import LogSubscription, SourceRequest
from rustmq_sdk.testing.contracts.subscriber import Subscriber, log_member
from rustmq_sdk.testing.listener import RecordingListener
from rustmq_sdk.values import OutgoingMessage, TopicPartition
from tests.integration.others import PATIENCE, another, until

TP = TopicPartition("quakes", 0)
NEVER = 3600.0

Reader: TypeAlias = Subscriber[LogSubscription]


@pytest.fixture(scope="class")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


@pytest.fixture(params=["auto", "poll"])
def wake(request: pytest.FixtureRequest) -> str:
    how: str = request.param
    return how


@pytest.fixture
async def driver(path: Path, wake: str) -> AsyncIterator[SqliteDriver]:
    async with sqlite.open(f"sqlite:///{path}?wake={wake}") as driver:
        await driver.admin().create_topic(TP.topic, 1, {})
        yield driver


@pytest.fixture
def no_net(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks at the log by himself: who does not hear, hears nothing."""
    monkeypatch.setattr(file_watch, "NET_SECONDS", NEVER)
    monkeypatch.setattr(EventFileWatch, "look_every", NEVER)


@asynccontextmanager
async def reading(driver: SqliteDriver) -> AsyncIterator[Reader]:
    request = SourceRequest(topics=[TP.topic], group=None, lease=1000, revoke_budget=1.0)
    async with log_member(driver, request, RecordingListener(committed=False), PATIENCE) as reader:
        await reader.owns([TP])
        await until(lambda: driver._file().watcher._seen is not None)
        yield reader


async def hears(reader: Reader, word: bytes, count: int) -> None:
    await reader.collect(count)
    assert reader.payloads()[-1] == word


async def append(driver: SqliteDriver, payload: bytes) -> None:
    await driver.sink().append(TP.topic, 0, [OutgoingMessage(payload)], sequence=None)


@pytest.mark.usefixtures("no_net")
async def test_a_waiting_fetch_hears_of_another_process(driver: SqliteDriver, path: Path) -> None:
    async with reading(driver) as reader:
        with another(path, lease=10) as other:
            for number in range(5):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(hears, reader, str(number).encode(), number + 1)
                    await anyio.wait_all_tasks_blocked()
                    assert await other.ask(f"send {number}") == "sent"


@pytest.mark.usefixtures("no_net")
async def test_a_removed_file_is_made_again(driver: SqliteDriver, path: Path) -> None:
    async with reading(driver) as reader:
        with another(path, lease=10) as other:
            assert await other.ask("send before") == "sent"
            await hears(reader, b"before", 1)
            doorbell_path(path).unlink()
            await until(doorbell_path(path).exists)
            assert await other.ask("send after") == "sent"
            await hears(reader, b"after", 2)


@pytest.mark.slow
async def test_a_writer_that_did_not_ring_is_heard_all_the_same(driver: SqliteDriver, path: Path) -> None:
    async with reading(driver) as reader:
        with another(path, lease=10) as other:
            assert await other.ask("mute") == "mute"
            assert await other.ask("send quietly") == "sent"
            await hears(reader, b"quietly", 1)


@pytest.mark.usefixtures("no_net")
async def test_our_own_commits_are_told_once(driver: SqliteDriver, path: Path) -> None:
    heard: list[Changed] = []
    driver._file().broadcast.listen(heard.append)
    with another(path, lease=1000) as other:
        await other.owns([0])
        async with reading(driver) as reader:
            await until(lambda: None in heard)  # the first look
            heard.clear()
            for number in range(20):
                await append(driver, str(number).encode())

            assert await other.ask("send last") == "sent"
            await hears(reader, b"last", 21)
            await until(lambda: None in heard)

    assert heard[0] is not None
    assert heard == [heard[0]] * 20 + [None]


@pytest.mark.usefixtures("no_net")
async def test_who_joins_beats_in_time_although_the_watch_is_waiting(
    driver: SqliteDriver, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watch thread has learned before how long it may wait, when nobody had to beat."""
    monkeypatch.setattr(watcher, "NET_SECONDS", NEVER)
    async with reading(driver):
        await until(lambda: driver._file().watcher._threads[-1]._tick_at > time.monotonic() + NEVER / 2)
        request = SourceRequest(topics=[TP.topic], group="alarm", lease=1.0, revoke_budget=0.5)
        async with log_member(driver, request, RecordingListener(committed=True), PATIENCE) as member:
            await member.owns([TP])
            await until(lambda: beats(path) > 0)


def beats(path: Path) -> int:
    connection = apsw.Connection(str(path))
    try:
        return int(connection.execute("SELECT sum(beat) FROM member").get)
    finally:
        connection.close()


async def test_nothing_is_left_behind_and_nothing_is_made_where_nobody_waits(driver: SqliteDriver, path: Path) -> None:
    await append(driver, b"1")
    assert not doorbell_path(path).exists()
    async with reading(driver):
        assert doorbell_path(path).exists()
        with another(path, lease=10) as other:
            await other.owns([0])
            other.say("leave")
            assert other.process.wait(PATIENCE) == 0

        assert doorbell_path(path).exists(), "we still watch it"

    await driver.__aexit__()
    assert sorted(each.name for each in path.parent.iterdir()) == ["log.db"]


@pytest.mark.parametrize("wake", ["auto"], indirect=True)
@pytest.mark.usefixtures("no_net")
async def test_where_the_file_cannot_be_made_the_log_itself_is_looked_at(
    driver: SqliteDriver, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    doorbell_path(path).mkdir()
    async with reading(driver) as reader:
        with another(path, lease=10) as other:
            assert await other.ask("send anyway") == "sent"
            await hears(reader, b"anyway", 1)

    assert "wake=poll" in caplog.text


@pytest.mark.parametrize("wake", ["auto"], indirect=True)
@pytest.mark.usefixtures("no_net")
async def test_a_watch_that_breaks_is_replaced_by_polling(
    driver: SqliteDriver, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with reading(driver) as reader:
        (watch,) = driver._file().watcher._threads
        broken = watch._file_watch
        assert isinstance(broken, EventFileWatch)
        # Removed, and its place taken by what cannot be watched.
        doorbell_path(path).unlink()
        doorbell_path(path).mkdir()
        await until(lambda: watch._file_watch is not broken)
        assert isinstance(watch._file_watch, PollingFileWatch)
        with another(path, lease=10) as other:
            assert await other.ask("send anyway") == "sent"
            await hears(reader, b"anyway", 1)

    assert "wake=poll" in caplog.text


async def test_a_subscription_that_ends_gives_its_descriptors_back(driver: SqliteDriver) -> None:
    counts = []
    for _ in range(3):
        async with reading(driver):
            pass

        await until(lambda: not any(watch.is_alive() for watch in driver._file().watcher._threads))
        counts.append(len(os.listdir("/proc/self/fd")))  # noqa: PTH208

    assert counts[1] == counts[2]
