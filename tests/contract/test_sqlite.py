"""The embedded log keeps every promise of the slots, in real time: its threads are outside the loop."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from rustmq_sdk.drivers import sqlite
from rustmq_sdk.drivers.sqlite import SqliteDriver
from rustmq_sdk.drivers.sqlite.claims import leave
from rustmq_sdk.drivers.sqlite.group import view
from rustmq_sdk.drivers.sqlite.transaction import Transaction
from rustmq_sdk.slots import Driver
from rustmq_sdk.testing.contracts import AdminContract, LogSourceContract, SinkContract, StateStoreContract
from rustmq_sdk.values import TopicPartition


def by_hand(path: Path) -> apsw.Connection:
    """What a tool would do to the file."""
    connection = apsw.Connection(str(path))
    connection.set_busy_timeout(10_000)
    return connection


def ids(path: Path, tp: TopicPartition) -> Any:
    """A partition's id, and its end."""
    with_name = (
        "SELECT p.id, p.next FROM partition AS p JOIN topic AS t ON t.id = p.topic WHERE t.name = ? AND number = ?"
    )
    return by_hand(path).execute(with_name, tp).get


class OnSqlite:
    """Where the suites get their driver."""

    @pytest.fixture
    async def driver(self, tmp_path: Path) -> AsyncIterator[Driver]:
        async with sqlite.open(f"sqlite:///{tmp_path}/log.db") as driver:
            yield driver


class TestLog(OnSqlite, LogSourceContract):
    cooperative = True

    @pytest.fixture(autouse=True)
    def path(self, tmp_path: Path) -> None:
        self.file = tmp_path / "log.db"

    def truncate(self, driver: Driver, tp: TopicPartition, before: int) -> None:
        partition, _ = ids(self.file, tp)
        with by_hand(self.file) as connection:
            connection.execute("DELETE FROM batch WHERE partition = ? AND base + count <= ?", (partition, before))
            connection.execute("UPDATE partition SET start = ? WHERE id = ?", (before, partition))

    def append_broken(self, driver: Driver, tp: TopicPartition, raw: bytes) -> None:
        partition, end = ids(self.file, tp)
        row = (partition, end, 1, 0, 0, 0, 0, len(raw), 0, raw)
        with by_hand(self.file) as connection:
            connection.execute("INSERT INTO batch VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
            connection.execute("UPDATE partition SET next = next + 1 WHERE id = ?", (partition,))

    async def expire(self, driver: Driver, group: str) -> None:
        assert isinstance(driver, SqliteDriver)

        def take(transaction: Transaction) -> None:
            (oldest,) = view(transaction, group).members
            leave(transaction, group, oldest)

        await driver._file().write("source", "expire", take)


class TestSink(OnSqlite, SinkContract):
    pass


class TestStateStore(OnSqlite, StateStoreContract):
    pass


class TestAdmin(OnSqlite, AdminContract):
    pass
