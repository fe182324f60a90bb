"""Everything that only reads: a second connection on a second thread, so that no fetch waits for an fsync."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import apsw

from rustmq_sdk._threads import DaemonThread
from rustmq_sdk.drivers.sqlite.database import BusyHandler, Connection, connect
from rustmq_sdk.drivers.sqlite.file_identity import FileIdentity
from rustmq_sdk.drivers.sqlite.options import SqliteOptions
from rustmq_sdk.drivers.sqlite.transaction import Queries

P = ParamSpec("P")
T = TypeVar("T")


class Reader:
    """Runs queries one after another. No query leaves a transaction open."""

    def __init__(self, path: Path, options: SqliteOptions, identity: FileIdentity, stop: threading.Event) -> None:
        self._path = path
        self._options = options
        self._identity = identity
        self._busy_handler = BusyHandler(options.busy_timeout, stop)
        self._thread = DaemonThread("rustmq-sqlite-read")
        self._connection: Connection | None = None

    async def run(self, query: Callable[Concatenate[Queries, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs ``query(queries, *args)`` on the thread. Cancelling abandons the result."""
        return await self._thread.run(lambda: query(self._queries(), *args, **kwargs))

    async def close(self) -> None:
        """Interrupts what runs, and closes the connection."""
        connection = self._connection
        if connection is not None:
            with suppress(apsw.ConnectionClosedError):  # it was closed in this very moment
                connection.interrupt()

        await self._thread.run(self._disconnect)

    def abandon(self) -> None:
        """Lets the thread end when it can."""
        self._thread.close()

    def _queries(self) -> Queries:
        self._identity.raise_if_gone()
        if self._connection is None:
            self._connection = connect(self._path, self._options, self._busy_handler)
            self._identity.opened(self._connection)
            self._connection.pragma("query_only", value=True)

        return Queries(self._connection)

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._identity.close(connection)
