"""Looking a whole file over: ``rustmq check events.db`` and ``python -m rustmq_sdk.drivers.sqlite events.db``."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import apsw

from rustmq_sdk._redaction import redact
from rustmq_sdk.drivers.sqlite.codec import DamagedBatch, decode
from rustmq_sdk.drivers.sqlite.consistency import inconsistencies
from rustmq_sdk.drivers.sqlite.database import BusyHandler, Connection, connect
from rustmq_sdk.drivers.sqlite.failures import translated
from rustmq_sdk.drivers.sqlite.options import SqliteOptions, file_of
from rustmq_sdk.drivers.sqlite.schema import PAGE_SIZE
from rustmq_sdk.drivers.sqlite.transaction import Queries
from rustmq_sdk.errors import ConfigurationError, RustMQError
from rustmq_sdk.values import TopicPartition

BATCHES_AT_ONCE = 16
"""Of 1 MiB each, nearly always."""


def integrity_check(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """What is wrong with a log, in sentences; empty if nothing is.

    Reads everything: SQLite's own structures, each batch with its checksum, whether the offsets follow one another, and
    whether topics, positions and members belong together. Changes nothing, and may run while the log is in use; the
    write-ahead log grows as long as SQLite's part of it takes.

    Args:
        path: of the file, or its ``sqlite://`` URL.

    Raises:
        ConfigurationError: there is no such file, or it is not a log.
    """
    file = file_of(path)
    if not file.is_file():
        raise ConfigurationError("there is no such file", field="path", value=str(file), fix="Name an existing log")

    with translated(file, slot="source", operation="integrity_check"):
        options = SqliteOptions(create=False)
        try:
            connection = connect(file, options, BusyHandler(options.busy_timeout, threading.Event()))
        except apsw.CorruptError as error:
            return (f"SQLite: {error}; {_extent(file)}, so that nothing can be read. Restore a backup",)

        try:
            connection.pragma("query_only", value=True)
            return tuple(_problems(connection))
        finally:
            connection.close()


def check_files(paths: Iterable[str], say: Callable[[str], None]) -> int:
    """What the commands do: says of each file what is wrong, or that it is sound. Returns their exit status.

    Args:
        paths: of files, or their URLs.
        say: is given each line.

    Returns:
        1 if something is wrong with any of them, or it cannot be looked at; else 0.
    """
    status = 0
    for path in paths:
        try:
            problems = integrity_check(path)
        except RustMQError as error:
            problems = (str(error),)

        status |= bool(problems)
        for line in problems or ("sound",):
            say(f"{redact(path)}: {line}")

    return status


def _extent(file: Path) -> str:
    """What can be said of a file that SQLite does not open, from outside: opening it here would drop its locks."""
    size = file.stat().st_size
    pages, rest = divmod(size, PAGE_SIZE)
    if rest:
        return f"the file breaks off at byte {size:,}, inside of page {pages + 1:,}"

    return f"its {size:,} bytes are fewer than there should be, or damaged at the beginning"


class _Batch(NamedTuple):
    base: int
    length: int
    last_ms: int
    newest_ms: int
    total: int
    crc: int
    data: bytes

    @property
    def end(self) -> int:
        return self.base + self.length


def _problems(connection: Connection) -> Iterator[str]:
    queries = Queries(connection)
    try:
        for (line,) in connection.execute("PRAGMA integrity_check"):
            if line != "ok":
                yield f"SQLite: {line}"

        yield from inconsistencies(queries)
        partitions = queries.rows(
            "SELECT p.id, t.name, p.number, p.next, p.total FROM partition AS p JOIN topic AS t ON t.id = p.topic"
        )
        for id_, topic, number, end, total in partitions:
            for problem in _Walk(queries, id_, end, total).problems():
                yield f"{TopicPartition(topic, number)}: {problem}"
    except apsw.CorruptError as error:
        yield f"SQLite: {error}; what lies beyond cannot be read"


class _Walk:
    """Through the batches of a partition that were there when it began; it does not chase a busy writer.

    Args:
        queries: to read with.
        partition: its id.
        end: the offset after its last message.
        total: bytes of all batches ever stored.
    """

    def __init__(self, queries: Queries, partition: int, end: int, total: int) -> None:
        self._queries = queries
        self._partition = partition
        self._end = end
        self._total = total
        self._start = self._reached = 0
        self._last: _Batch | None = None

    def problems(self) -> Iterator[str]:
        while batches := self._some():
            for batch in batches:
                yield from self._order(batch)
                yield from self._contents(batch)
                self._reached = max(self._reached, batch.end)
                self._last = batch

        if self._reached != self._end >= self._start:
            yield f"the batches end at offset {self._reached}, the partition at {self._end}"
        elif self._last is not None and self._last.total != self._total:
            yield f"the batches have {self._last.total} bytes up to the last, the partition counts {self._total}"

    def _some(self) -> list[_Batch]:
        """The next batches. Few at a time: as long as they are read, no write-ahead log can start over."""
        with self._queries.snapshot():
            row = self._queries.row("SELECT start FROM partition WHERE id = ?", self._partition)
            # Retention goes on meanwhile, and the topic may be deleted.
            self._start = self._end + 1 if row is None else row[0]
            self._reached = max(self._reached, self._start)
            rows = self._queries.rows(
                "SELECT base, count, last_ms, newest_ms, total, crc, data FROM batch "
                "WHERE partition = ? AND base > ? AND base < ? ORDER BY base LIMIT ?",
                self._partition,
                -1 if self._last is None else self._last.base,
                self._end,
                BATCHES_AT_ONCE,
            )

        return [] if row is None else list(map(_Batch._make, rows))

    def _order(self, batch: _Batch) -> Iterator[str]:
        last = self._last
        if batch.base > self._reached:
            yield f"the offsets {self._reached} to {batch.base - 1} are missing"

        if batch.end <= self._start:
            yield f"the batch at offset {batch.base} lies before the start {self._start}"

        if last is not None and batch.base < last.end:
            yield f"the batch at offset {batch.base} begins before the end {last.end} of the one at {last.base}"

        if last is not None and batch.base == last.end:
            total, newest_ms = last.total + len(batch.data), max(last.newest_ms, batch.last_ms)
            if (batch.total, batch.newest_ms) != (total, newest_ms):
                yield f"the sums of the batch at offset {batch.base} do not go on from those before it"

    def _contents(self, batch: _Batch) -> Iterator[str]:
        try:
            decode(batch.base, batch.length, batch.data, batch.crc)
        except DamagedBatch as error:
            yield str(error)
