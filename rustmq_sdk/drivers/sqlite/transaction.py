"""Statements, as the functions see them that read and write the tables."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Any

from rustmq_sdk.drivers.sqlite import buffers
from rustmq_sdk.drivers.sqlite.database import Connection


class Queries:
    """Reading: each call is a snapshot of its own, or inside a :class:`Transaction` part of that."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def row(self, sql: str, *values: Any) -> tuple[Any, ...] | None:
        """The first row of a query; None if there is none."""
        row: tuple[Any, ...] | None = self._connection.execute(sql, values).fetchone()
        return row

    def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """All rows of a query; for those that are few, since each takes the interpreter's lock back."""
        return self._connection.execute(sql, values).fetchall()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """All queries of the block see the file as it was at the first of them."""
        self._connection.execute("BEGIN")
        try:
            yield
        finally:
            if self._connection.in_transaction:
                self._connection.execute("COMMIT")

    def batch_data(self, rowid: int, size: int) -> memoryview:
        """The blob of a large batch, in a buffer to be given back."""
        data = buffers.take(size)
        with self._connection.blob_open("main", "batch", "data", rowid, writeable=False) as blob:
            blob.read_into(data)

        return data


class Transaction(Queries):
    """One write transaction.

    Attributes:
        now_ms: milliseconds since the epoch, one reading for the whole transaction.
        changed: what to broadcast; see :data:`rustmq_sdk.drivers.sqlite.broadcast.Changed`.
    """

    def __init__(self, connection: Connection, now_ms: int) -> None:
        super().__init__(connection)
        self.now_ms = now_ms
        self.changed: set[Hashable] = set()

    def execute(self, sql: str, *values: Any) -> int:
        """Runs one statement; returns how many rows it changed."""
        self._connection.execute(sql, values)
        return self._connection.changes()
