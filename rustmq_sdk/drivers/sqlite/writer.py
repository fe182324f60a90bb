"""Everything that writes: one connection on one thread, and whatever waits goes into one transaction."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import apsw

from rustmq_sdk._threads import DaemonThread, Reply, ThreadClosed
from rustmq_sdk.drivers.sqlite.appending import Append, store
from rustmq_sdk.drivers.sqlite.broadcast import Broadcast
from rustmq_sdk.drivers.sqlite.database import BusyHandler, Connection, connect
from rustmq_sdk.drivers.sqlite.ends import Ends, Stale
from rustmq_sdk.drivers.sqlite.failures import BUSY, LOST_AT_COMMIT, CommitFailed, FileGone
from rustmq_sdk.drivers.sqlite.file_identity import FileIdentity
from rustmq_sdk.drivers.sqlite.housekeeping import Housekeeping
from rustmq_sdk.drivers.sqlite.options import SqliteOptions
from rustmq_sdk.drivers.sqlite.remembered_appends import RememberedAppends, Stored
from rustmq_sdk.drivers.sqlite.topics import partition_row
from rustmq_sdk.drivers.sqlite.transaction import Queries, Transaction
from rustmq_sdk.errors import OutcomeUnknown, RustMQError, TransientDriverError

T = TypeVar("T")
A_contra = TypeVar("A_contra", contravariant=True)

GROUP_BYTES = 4 * 1024 * 1024
GROUP_REQUESTS = 1000
"""What one transaction takes at most, so that other processes get their turn: 20 ms even on a slow disk."""


NOBODYS_FAULT = (*BUSY, FileGone)
"""What meets all requests of a transaction alike."""


class Answered(Protocol[A_contra]):
    """Who is told what came of a request, on the writer's thread: a :class:`Reply`, or somebody who does not wait."""

    def set(self, value: A_contra, /) -> None: ...
    def fail(self, error: BaseException, /) -> None: ...


class _Change(NamedTuple):
    make: Callable[[Transaction], Any]
    reply: Answered[Any]


class _Appending(NamedTuple):
    append: Append
    reply: Reply[Stored]


_Request = _Change | _Appending


class Writer:
    """Group commit: requests that wait while a transaction is written share the next one.

    Args:
        path: of the file.
        options: from the URL.
        wall_clock_ms: milliseconds since the epoch.
        broadcast: sent after each commit.
        identity: asked after each commit.
        stop: ends its waiting for locks.
    """

    def __init__(
        self,
        path: Path,
        options: SqliteOptions,
        *,
        wall_clock_ms: Callable[[], int],
        broadcast: Broadcast,
        identity: FileIdentity,
        stop: threading.Event,
    ) -> None:
        self._path = path
        self._options = options
        self._wall_clock_ms = wall_clock_ms
        self._broadcast = broadcast
        self._identity = identity
        self._busy_handler = BusyHandler(options.busy_timeout, stop)
        self._thread = DaemonThread("rustmq-sqlite-write")
        self._waiting: deque[_Request] = deque()
        self._connection: Connection | None = None
        self._ends = Ends()
        self._housekeeping = Housekeeping(path, options, self._transact, self._busy_handler)

    async def open(self) -> None:
        """Opens the file, and creates the tables in a new one."""
        await self._thread.run(self._connected)

    async def append(self, append: Append) -> Stored:
        """Durable on return.

        Raises:
            OutcomeUnknown: the disk failed while the transaction was being committed, and there is no sequence to
                look for.
            TransientDriverError: it failed, and the sequence is not stored.
        """
        reply: Reply[Stored] = Reply()
        self._request(_Appending(append, reply))
        return await reply.wait()

    async def run(self, make: Callable[[Transaction], T]) -> T:
        """Makes a change, in one transaction with whatever else waits; durable on return.

        ``make`` may be called a second time, after a rollback, if the first call or another change failed.

        Raises:
            OutcomeUnknown: the disk failed while the transaction was being committed.
        """
        reply: Reply[T] = Reply()
        self.request(make, reply)
        return await reply.wait()

    def request(self, make: Callable[[Transaction], T], answered: Answered[T]) -> None:
        """As :meth:`run`, without waiting. From any thread."""
        self._request(_Change(make, answered))

    def look(self, tell: Callable[[int | None], None]) -> None:
        """Calls back, on the writer's thread, with a number that changes when somebody else has committed.

        With None if it cannot be had now: what is wrong those will hear who want something of the file.
        """
        with suppress(ThreadClosed):  # there is nobody to wake any more
            self._thread.submit(partial(self._look, tell))

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

    def _request(self, request: _Request) -> None:
        # One call a request: each finds what waits then, and those whose request an earlier one took find nothing.
        self._waiting.append(request)
        self._thread.submit(self._work)

    def _connected(self) -> Connection:
        self._identity.raise_if_gone()
        if self._connection is None:
            self._connection = connect(self._path, self._options, self._busy_handler)
            self._identity.opened(self._connection)
            self._housekeeping.attach(self._connection)

        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._identity.close(connection)

    def _look(self, tell: Callable[[int | None], None]) -> None:
        version = None
        with suppress(apsw.Error, FileGone):
            self._check_identity()
            # The pragma and not data_version(), which does not look at the file and counts our own commits.
            version = None if self._connection is None else self._connection.pragma("data_version")

        tell(version)

    def _work(self) -> None:
        group = self._take()
        if group:
            self._write(group)

    def _take(self) -> list[_Request]:
        group: list[_Request] = []
        size = 0
        while self._waiting and len(group) < GROUP_REQUESTS and size < GROUP_BYTES:
            request = self._waiting.popleft()
            group.append(request)
            size += request.append.messages.size if isinstance(request, _Appending) else 0

        return group

    def _write(self, group: Sequence[_Request]) -> None:
        try:
            answers = self._make_all(group)
        except CommitFailed as failed:
            self._recover(group, failed)
        except Exception as error:
            if len(group) == 1 or isinstance(error, NOBODYS_FAULT):
                for request in group:
                    request.reply.fail(error)
            else:  # one of them is to blame, and the others shall not suffer
                for request in group:
                    self._write([request])
        else:
            for tell in answers:
                tell()

            if self._connection is not None:
                self._housekeeping.after_commit(self._connection)

    def _make_all(self, group: Sequence[_Request]) -> list[Callable[[], None]]:
        make = partial(_make_all, group, self._ends)
        try:
            return self._transact(make)
        except Stale:  # Rolling back has forgotten the ends: now all is read from the file, and that is not stale.
            return self._transact(make)

    def _transact(self, make: Callable[[Transaction], T]) -> T:
        connection = self._connected()
        connection.execute("BEGIN IMMEDIATE")
        transaction = Transaction(connection, self._wall_clock_ms())
        try:
            value = make(transaction)
        except BaseException:
            self._roll_back(connection)
            raise

        self._commit(connection)
        self._check_identity()
        if transaction.changed:
            self._broadcast.send(frozenset(transaction.changed))

        return value

    def _commit(self, connection: Connection) -> None:
        try:
            connection.execute("COMMIT")
        except LOST_AT_COMMIT as error:
            # An end that was not stored may agree by chance with one that somebody else has moved, and its sums do not.
            self._ends.forget()
            self._disconnect()
            raise CommitFailed(str(error)) from error
        except BaseException:
            self._roll_back(connection)
            raise

    def _check_identity(self) -> None:
        """Whether what was written is where others look for it."""
        try:
            self._identity.check()
        except FileGone:
            self._disconnect()
            self._broadcast.tell_here(None)  # those who wait for something in it shall hear of it
            raise

    def _roll_back(self, connection: Connection) -> None:
        self._ends.forget()
        # SQLite rolls back by itself after some errors, a full disk among them.
        if connection.in_transaction:
            connection.execute("ROLLBACK")

    def _recover(self, group: Sequence[_Request], failed: CommitFailed) -> None:
        """Opens the file anew and looks which sequences are stored; about the rest nothing can be said."""
        for request in group:
            try:
                stored = self._find(request)
            except Exception:
                stored = None
                error: RustMQError = _unknown(self._path, failed, request)
            else:
                sequenced = isinstance(request, _Appending) and request.append.sequence is not None
                error = _not_stored(self._path, failed) if sequenced else _unknown(self._path, failed, request)

            if stored is None:
                error.__cause__ = failed.__cause__
                request.reply.fail(error)
            else:
                request.reply.set(stored)

    def _find(self, request: _Request) -> Stored | None:
        if isinstance(request, _Change) or request.append.sequence is None:
            return None

        append = request.append
        queries = Queries(self._connected())
        partition = partition_row(queries, append.topic, append.partition)
        assert append.sequence is not None
        return (
            None
            if partition is None
            else RememberedAppends(partition.id).find(queries, append.sequence, append.messages.length)
        )


def _make_all(group: Sequence[_Request], ends: Ends, transaction: Transaction) -> list[Callable[[], None]]:
    """Makes the changes; what it returns is called after the commit, to tell everybody."""
    appending = [request for request in group if isinstance(request, _Appending)]
    tells: list[Callable[[], None]] = []
    for request, answer in zip(appending, store(transaction, [each.append for each in appending], ends), strict=True):
        if isinstance(answer, Stored):
            tells.append(partial(request.reply.set, answer))
        else:
            tells.append(partial(request.reply.fail, answer))

    changes = [request for request in group if isinstance(request, _Change)]
    return tells + [partial(change.reply.set, change.make(transaction)) for change in changes]


def _unknown(path: Path, failed: CommitFailed, request: _Request) -> OutcomeUnknown:
    if isinstance(request, _Change):
        advice = "it may be made or not. Look what is there before repeating it"
    else:
        advice = (
            "it may be stored or not. Read the end of the log before repeating it, or send with a producer, whose "
            "sequence numbers tell"
        )

    return OutcomeUnknown(f"{path}: the disk failed while a transaction was being committed ({failed}): {advice}")


def _not_stored(path: Path, failed: CommitFailed) -> TransientDriverError:
    problem = f"{path}: the disk failed while the append was being committed ({failed}). It is not stored; repeat it"
    return TransientDriverError(problem, slot="sink", operation="append", retry_after=1.0)
