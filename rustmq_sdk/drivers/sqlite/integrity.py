"""Looking a whole file over: ``python -m rustmq_sdk.drivers.sqlite events.db``."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import apsw

from rustmq_sdk.drivers.sqlite.codec import DamagedBatch, decode
from rustmq_sdk.drivers.sqlite.database import Connection, Patience, connect
from rustmq_sdk.drivers.sqlite.failures import translated
from rustmq_sdk.drivers.sqlite.options import SqliteOptions
from rustmq_sdk.drivers.sqlite.transaction import Queries
from rustmq_sdk.errors import ConfigurationError
from rustmq_sdk.values import TopicPartition


def integrity_check(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """What is wrong with a log, in sentences; empty if nothing is.

    Reads everything: SQLite's own structures, each batch with its checksum, and whether the offsets follow one another.
    Changes nothing, and may run while the log is in use.

    Raises:
        ConfigurationError: there is no such file, or it is not a log.
        PermanentDriverError: it is too damaged to be opened.
    """
    file = Path(path).absolute()
    if not file.is_file():
        raise ConfigurationError("there is no such file", field="path", value=str(file), fix="Name an existing log")

    with translated(file, slot="source", operation="integrity_check"):
        options = SqliteOptions(create=False)
        connection = connect(file, options, Patience(options.busy_timeout, threading.Event()))
        try:
            connection.pragma("query_only", value=True)
            return tuple(_problems(connection))
        finally:
            connection.close()


def _problems(connection: Connection) -> Iterator[str]:
    try:
        for (line,) in connection.execute("PRAGMA integrity_check"):
            if line != "ok":
                yield f"SQLite: {line}"

        partitions = Queries(connection).rows(
            "SELECT p.id, t.name, p.number, p.start, p.next FROM partition AS p JOIN topic AS t ON t.id = p.topic"
        )
        for id_, topic, number, start, end in partitions:
            for problem in _problems_of(connection, id_, start, end):
                yield f"{TopicPartition(topic, number)}: {problem}"
    except apsw.CorruptError as error:
        yield f"SQLite: {error}; what lies behind cannot be read"


def _problems_of(connection: Connection, partition: int, start: int, end: int) -> Iterator[str]:
    # The range of one look is what was committed when it began: the rest of the check does not chase a busy writer.
    sql = "SELECT base, count, crc, data FROM batch WHERE partition = ? AND base < ? ORDER BY base"
    reached = start
    for base, count, crc, data in connection.execute(sql, (partition, end)):
        if base > reached:
            yield f"the offsets {reached} to {base - 1} are missing"

        if base + count <= start:
            yield f"the batch at offset {base} lies before the start {start}"

        reached = max(reached, base + count)
        try:
            decode(base, count, data, crc)
        except DamagedBatch as error:
            yield str(error)

    if reached != end:
        yield f"the batches end at offset {reached}, the partition at {end}"
