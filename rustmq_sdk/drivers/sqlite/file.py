"""One open log: its writer, its reader and its broadcasts, with every failure translated on the way out."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import anyio

from rustmq_sdk._threads import run_in_daemon_thread
from rustmq_sdk.drivers.sqlite.appending import Append
from rustmq_sdk.drivers.sqlite.broadcast import Broadcast
from rustmq_sdk.drivers.sqlite.failures import translated
from rustmq_sdk.drivers.sqlite.file_identity import FileIdentity
from rustmq_sdk.drivers.sqlite.file_watch import open_file_watch
from rustmq_sdk.drivers.sqlite.filesystems import warn_of_network
from rustmq_sdk.drivers.sqlite.options import SqliteOptions
from rustmq_sdk.drivers.sqlite.reader import Reader
from rustmq_sdk.drivers.sqlite.remembered_appends import Stored
from rustmq_sdk.drivers.sqlite.transaction import Queries, Transaction
from rustmq_sdk.drivers.sqlite.watcher import Watcher
from rustmq_sdk.drivers.sqlite.writer import Answered, Writer

P = ParamSpec("P")
T = TypeVar("T")

CLOSE_SECONDS = 2.0
"""How long to wait for the threads. A disk that does not answer keeps its threads, which do not keep the process."""


class LogFile:
    """The file and everything that is open of it.

    Attributes:
        path: of the file itself, also where ``name`` leads to it by symbolic links. SQLite has its files beside that
            one; so have we, or processes that came by different links would neither wake nor watch each other.

    Args:
        name: of the file.
        options: from the URL.
        wall_clock_ms: milliseconds since the epoch.
    """

    def __init__(self, name: Path, options: SqliteOptions, wall_clock_ms: Callable[[], int]) -> None:
        # Not Path.resolve(), which raises an error of its own for links that lead in a circle.
        self.path = path = Path(os.path.realpath(name))
        self.options = options
        self.broadcast = Broadcast(path)
        self._stop = threading.Event()
        identity = FileIdentity(name, path)
        self._writer = Writer(
            path, options, wall_clock_ms=wall_clock_ms, broadcast=self.broadcast, identity=identity, stop=self._stop
        )
        self._reader = Reader(path, options, identity, self._stop)
        self.watcher = Watcher(path, self.broadcast, self._writer.look, partial(open_file_watch, path, options.wake))
        """Tells of commits, this process's and others', and of members that ended; ticks meanwhile."""

    async def open(self) -> None:
        """Opens the file, or creates it."""
        with translated(self.path, slot="source", operation="open"):
            await self._writer.open()

        warn_of_network(self.path)

    async def close(self) -> None:
        """Interrupts what runs and closes the file; takes at most :data:`CLOSE_SECONDS`."""
        self._stop.set()
        self.watcher.stop()
        with anyio.move_on_after(CLOSE_SECONDS, shield=True):
            await self._reader.close()
            await self._writer.close()
            await run_in_daemon_thread(self.watcher.join)
            self.broadcast.close()

        self._reader.abandon()
        self._writer.abandon()

    async def append(self, append: Append) -> Stored:
        """Durable on return; see :meth:`Writer.append`."""
        with translated(self.path, slot="sink", operation="append"):
            return await self._writer.append(append)

    async def read(
        self, slot: str, operation: str, query: Callable[Concatenate[Queries, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Runs a query; ``slot`` and ``operation`` name it in an error."""
        with translated(self.path, slot=slot, operation=operation):
            return await self._reader.run(query, *args, **kwargs)

    async def write(
        self,
        slot: str,
        operation: str,
        change: Callable[Concatenate[Transaction, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Makes a change, durably; see :meth:`Writer.run`."""
        with translated(self.path, slot=slot, operation=operation):
            return await self._writer.run(lambda transaction: change(transaction, *args, **kwargs))

    def request(self, change: Callable[[Transaction], T], answered: Answered[T]) -> None:
        """Makes a change without waiting for it, from any thread; see :meth:`Writer.request`."""
        self._writer.request(change, answered)
