"""What the URL scheme ``sqlite://`` names."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from rustmq_sdk.drivers.sqlite.admin import SqliteAdmin
from rustmq_sdk.drivers.sqlite.file import LogFile
from rustmq_sdk.drivers.sqlite.options import SqliteOptions, check_against_lease
from rustmq_sdk.drivers.sqlite.sink import SqliteSink
from rustmq_sdk.drivers.sqlite.source import CAPABILITIES, SqliteSource
from rustmq_sdk.drivers.sqlite.state import SqliteStateStore
from rustmq_sdk.errors import ConsumerStateError, Unsupported
from rustmq_sdk.slots import Capabilities, DeadLetterQueue, SourceRequest


def _wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000


class SqliteDriver:
    """The embedded log: one file, no server, any number of consumers in this and other processes of the machine.

    Dead letters have no place of their own: name a ``dead_letter_topic``.

    Args:
        path: of the file, which is created if there is none.
        options: see :class:`SqliteOptions`.
        wall_clock_ms: milliseconds since the epoch; stamps messages and decides what retention deletes.
    """

    def __init__(
        self, path: Path, options: SqliteOptions | None = None, *, wall_clock_ms: Callable[[], int] = _wall_clock_ms
    ) -> None:
        self._path = path
        self._options = options or SqliteOptions()
        self._wall_clock_ms = wall_clock_ms
        self._open: LogFile | None = None

    @property
    def capabilities(self) -> Capabilities:
        """What it can do; the same for every file."""
        return CAPABILITIES

    async def __aenter__(self) -> SqliteDriver:
        """Opens the file.

        Raises:
            ConfigurationError: the path cannot be a log: no such directory, another application's file, or one of a
                later release.
            PermanentDriverError: the file is read-only or damaged.
            TransientDriverError: it is locked, or the disk is full.
        """
        if self._open is None:
            file = LogFile(self._path, self._options, self._wall_clock_ms)
            try:
                await file.open()
            except BaseException:
                await file.close()
                raise

            self._open = file

        return self

    async def __aexit__(self, *exc_info: object) -> None:
        file, self._open = self._open, None
        if file is not None:
            await file.close()

    def source(self, request: SourceRequest) -> SqliteSource:
        """Raises ``ConfigurationError`` for a lease that is too short beside ``busy_timeout``."""
        if request.group is not None:
            check_against_lease(self._options, request.lease)

        return SqliteSource(self._file(), request)

    def sink(self) -> SqliteSink:
        return SqliteSink(self._file())

    def admin(self) -> SqliteAdmin:
        return SqliteAdmin(self._file())

    def state_store(self, name: str) -> SqliteStateStore:
        return SqliteStateStore(self._file(), name)

    def dead_letters(self, topic: str) -> DeadLetterQueue:
        """Raises ``Unsupported``: the runtime writes dead letters to a topic like any other."""
        raise Unsupported(f"sqlite has no dead-letter queue of its own for {topic!r}: give dead_letter_topic")

    def _file(self) -> LogFile:
        if self._open is None:
            raise ConsumerStateError(f"the log {self._path} is not open: use the client as an async context manager")

        return self._open
