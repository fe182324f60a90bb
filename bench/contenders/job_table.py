"""What is often written by hand: a table of jobs, one row a message, an UPDATE to claim it and one to finish it."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from time import perf_counter

import apsw

from bench.contenders import PAYLOAD

TABLES = """
CREATE TABLE IF NOT EXISTS job (
    id INTEGER PRIMARY KEY, queue TEXT NOT NULL, payload BLOB NOT NULL, status TEXT NOT NULL DEFAULT 'todo',
    attempts INTEGER NOT NULL DEFAULT 0, scheduled_at REAL
);
CREATE INDEX IF NOT EXISTS job_todo ON job (queue, id) WHERE status = 'todo';
"""
CLAIM = """
UPDATE job SET status = 'doing', attempts = attempts + 1 WHERE id = (
    SELECT id FROM job WHERE queue = 'bench' AND status = 'todo' ORDER BY id LIMIT 1
) RETURNING id, payload
"""
CLAIM_SOME = """
UPDATE job SET status = 'doing', attempts = attempts + 1 WHERE id IN (
    SELECT id FROM job WHERE queue = 'bench' AND status = 'todo' ORDER BY id LIMIT ?
) RETURNING id, payload
"""
FINISH = "UPDATE job SET status = 'succeeded' WHERE id = ?"


def produce(place: str, messages: int, group: int) -> float:
    connection = _open(place)
    began = perf_counter()
    for start in range(0, messages, group):
        rows = [(PAYLOAD,)] * min(group, messages - start)
        with connection if group > 1 else nullcontext():
            connection.executemany("INSERT INTO job (queue, payload) VALUES ('bench', ?)", rows)

    took = perf_counter() - began
    connection.close()
    return took


def consume(place: str, messages: int, group: int) -> float:
    connection = _open(place)
    began = perf_counter()
    consumed = _one_by_one(connection, messages) if group == 1 else _in_groups(connection, messages, group)
    took = perf_counter() - began
    assert consumed == messages
    connection.close()
    return took


def _one_by_one(connection: apsw.Connection, messages: int) -> int:
    for _ in range(messages):
        (job,) = connection.execute(CLAIM).fetchall()
        assert job[1] == PAYLOAD
        connection.execute(FINISH, (job[0],))

    return messages


def _in_groups(connection: apsw.Connection, messages: int, group: int) -> int:
    consumed = 0
    while consumed < messages:
        jobs = connection.execute(CLAIM_SOME, (group,)).fetchall()
        with connection:
            connection.executemany(FINISH, [(job[0],) for job in jobs])

        consumed += len(jobs)

    return consumed


def _open(place: str) -> apsw.Connection:
    connection = apsw.Connection(str(Path(place) / "jobs.db"))
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", "full")
    connection.execute(TABLES)
    return connection
