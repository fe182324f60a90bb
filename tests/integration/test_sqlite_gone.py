"""The embedded log whose files are deleted, moved or replaced while it is open."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from pathlib import Path

import pytest

import rustmq_sdk
from rustmq_sdk.drivers.sqlite import SqliteOptions, file_identity, integrity_check
from rustmq_sdk.drivers.sqlite.database import BusyHandler, connect
from rustmq_sdk.drivers.sqlite.failures import FileGone
from rustmq_sdk.drivers.sqlite.file_identity import FileIdentity
from rustmq_sdk.errors import PermanentDriverError
from tests.integration.others import PATIENCE

TOPIC = "quakes"


@pytest.fixture(autouse=True)
def look_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_identity, "COMPANIONS_SECONDS", 0.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder / "log.db"


@asynccontextmanager
async def producer_of(path: Path) -> AsyncIterator[rustmq_sdk.Producer]:
    async with rustmq_sdk.Client(f"sqlite:///{path}") as client, client.producer() as producer:
        yield producer


async def contents(path: Path, count: int) -> list[str]:
    """What a consumer finds; asks for a little more than there should be."""
    found: list[str] = []
    async with rustmq_sdk.Client(f"sqlite:///{path}?create=false") as client, client.consumer(TOPIC) as consumer:
        while len(found) < count:
            batch = await consumer.receive_batch(timeout=PATIENCE)
            found += [message.text() for message in batch]
            await batch.ack()

        assert not any((await consumer.get_lag()).values())

    return found


def deleted(path: Path) -> None:
    for each in path.parent.iterdir():
        each.unlink()


def only_the_log_deleted(path: Path) -> None:
    path.unlink()


def moved(path: Path) -> None:
    path.rename(path.with_name("elsewhere.db"))


def folder_moved(path: Path) -> None:
    path.parent.rename(path.parent.with_name("elsewhere"))


def replaced(path: Path) -> None:
    copy = path.with_name("copy.db")
    subprocess.run(["cp", path, copy], check=True)  # not here: SQLite's locks would go when we close it
    copy.replace(path)


def wal_deleted(path: Path) -> None:
    Path(f"{path}-wal").unlink()


def wal_replaced(path: Path) -> None:
    Path(f"{path}-wal").unlink()
    Path(f"{path}-wal").touch()


def shm_deleted(path: Path) -> None:
    Path(f"{path}-shm").unlink()


def put_a_file(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.touch()


def wal_size(path: Path) -> int:
    return Path(f"{path}-wal").stat().st_size


@pytest.mark.parametrize(
    "happens",
    [deleted, only_the_log_deleted, moved, folder_moved, replaced, wal_deleted, wal_replaced, shm_deleted],
)
async def test_nothing_is_confirmed_once_the_files_are_gone(path: Path, happens: Callable[[Path], None]) -> None:
    async with producer_of(path) as producer:
        await producer.send(TOPIC, b"before")
        happens(path)
        for _ in range(2):  # and not even once there is a file of that name again
            with pytest.raises(PermanentDriverError, match="was deleted, moved or replaced") as refusal:
                await producer.send(TOPIC, b"after")

            assert str(path) in str(refusal.value)
            put_a_file(path)


async def test_a_log_behind_a_symbolic_link_is_looked_up_as_well(path: Path) -> None:
    link = path.parent.with_name("link.db")
    link_to(link, path)
    async with producer_of(link) as producer:
        await producer.send(TOPIC, b"one")
        await producer.send(TOPIC, b"two")
        wal_deleted(path)
        with pytest.raises(PermanentDriverError, match=r"log\.db-wal was deleted"):
            await producer.send(TOPIC, b"after")

    async with producer_of(link) as producer:
        other = path.with_name("other.db")
        async with producer_of(other):
            pass

        link_to(link, other)
        with pytest.raises(PermanentDriverError, match=r"link\.db was deleted"):
            await producer.send(TOPIC, b"after")


def test_a_log_that_was_replaced_while_it_was_being_opened_is_not_taken_for_the_other(path: Path) -> None:
    with closing(connect(path, SqliteOptions(), BusyHandler(1.0, threading.Event()))) as connection:
        replaced(path)
        with pytest.raises(FileGone, match=r"log\.db was deleted, moved or replaced"):
            FileIdentity(path, path).opened(connection)


def link_to(link: Path, path: Path) -> None:
    link.unlink(missing_ok=True)
    link.symlink_to(path)


@pytest.mark.parametrize("happens", [deleted, replaced, wal_deleted])
async def test_a_waiting_consumer_hears_of_it(path: Path, happens: Callable[[Path], None]) -> None:
    async with producer_of(path) as producer:
        await producer.send(TOPIC, b"before")
        with pytest.raises(PermanentDriverError, match="was deleted, moved or replaced"):  # noqa: PT012
            async with (
                rustmq_sdk.Client(f"sqlite:///{path}") as client,
                client.consumer(TOPIC, start="earliest") as consumer,
            ):
                await (await consumer.receive(timeout=PATIENCE)).ack()
                happens(path)
                await consumer.receive(timeout=PATIENCE)


@pytest.mark.parametrize("happens", [wal_deleted, moved])
async def test_what_was_confirmed_is_saved_where_that_can_be(path: Path, happens: Callable[[Path], None]) -> None:
    async with producer_of(path) as producer:
        for number in range(50):
            await producer.send(TOPIC, f"{number}")

        happens(path)
        with pytest.raises(PermanentDriverError):
            await producer.send(TOPIC, b"after")

    if happens is moved:
        path = path.with_name("elsewhere.db")

    assert integrity_check(path) == ()
    assert (await contents(path, 50))[:50] == [f"{number}" for number in range(50)]


async def test_a_log_that_was_put_in_its_place_is_left_alone(path: Path) -> None:
    other = path.with_name("other.db")
    async with producer_of(other) as producer:
        await producer.send(TOPIC, b"theirs")

    async with producer_of(path) as ours:
        await ours.send(TOPIC, b"ours")
        deleted_but(path, other)
        other.replace(path)
        async with producer_of(path) as theirs:
            await theirs.send(TOPIC, b"theirs, too")
            with pytest.raises(PermanentDriverError):
                await ours.send(TOPIC, b"late")

            await theirs.send(TOPIC, b"theirs again")

    assert integrity_check(path) == ()
    assert await contents(path, 3) == ["theirs", "theirs, too", "theirs again"]


def deleted_but(path: Path, spared: Path) -> None:
    for each in path.parent.iterdir():
        if each != spared:
            each.unlink()


IN_ITS_PLACE = """
import sys, anyio, rustmq_sdk

async def main():
    async with rustmq_sdk.Client(sys.argv[1]) as client, client.producer() as producer:
        await producer.send("quakes", b"theirs")
        print("sent", flush=True)
        sys.stdin.readline()
        await producer.send("quakes", b"theirs again")

anyio.run(main)
"""


@contextmanager
def in_its_place(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another program that makes a log of the same name, and has sent to it."""
    command = [sys.executable, "-c", IN_ITS_PLACE, f"sqlite:///{path}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as theirs:
        assert theirs.stdout is not None
        assert theirs.stdout.readline() == "sent\n"
        yield theirs


async def test_another_program_may_begin_anew_under_the_name(path: Path) -> None:
    async with producer_of(path) as ours:
        await ours.send(TOPIC, b"ours")
        deleted(path)
        with in_its_place(path) as theirs:
            with pytest.raises(PermanentDriverError):
                await ours.send(TOPIC, b"late")

            theirs.communicate("go on\n")
            assert theirs.returncode == 0

    assert integrity_check(path) == ()
    assert await contents(path, 2) == ["theirs", "theirs again"]


async def test_who_never_heard_of_it_leaves_the_new_log_alone_at_closing(path: Path) -> None:
    """Closing moves the write-ahead log and deletes it by its name, which is somebody else's now."""
    async with AsyncExitStack() as stack:
        async with producer_of(path) as ours:
            await ours.send(TOPIC, b"ours")
            deleted(path)
            theirs = stack.enter_context(in_its_place(path))

        assert wal_size(path) > 0
        theirs.kill()

    assert integrity_check(path) == ()
    assert await contents(path, 1) == ["theirs"]


@pytest.mark.parametrize("once_more", [False, True])
async def test_commits_of_who_had_other_locks_are_left_alone_at_closing(path: Path, once_more: bool) -> None:
    """The ``-shm`` file says how far the write-ahead log goes; who comes after it was deleted has another one."""
    async with producer_of(path) as ours:
        await ours.send(TOPIC, b"ours")
        shm_deleted(path)
        with in_its_place(path) as theirs:
            theirs.kill()

        if once_more:
            shm_deleted(path)

    assert integrity_check(path) == ()
    assert await contents(path, 2) == ["ours", "theirs"]
