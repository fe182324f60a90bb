"""Queues that do the same work, a module each, imported only in the process that is measured.

A module has ``produce(place, messages, group)`` and ``consume(place, messages, group)``. Both do their work, check that
it was done, and answer the seconds it took without opening and closing. ``group`` is how many messages are made durable
at once, or acked at once; 1 is one after the other, each on the disk before the next. ``place`` is a folder of their
own, or the URL of a server.
"""

from __future__ import annotations

from typing import NamedTuple

PAYLOAD = b"x" * 100
GROUP = 500


class Contender(NamedTuple):
    """One row of the table.

    Attributes:
        name: of the product, with its settings.
        module: in this package.
        service: the server that it needs, by its name in ``scripts/services``.
        produces: in which groups it can append.
        consumes: in which groups it can ack.
        note: what its numbers do not mean.
    """

    name: str
    module: str
    service: str | None = None
    produces: tuple[int, ...] = (1, GROUP)
    consumes: tuple[int, ...] = (1, GROUP)
    note: str = ""


CONTENDERS = (
    Contender(
        "rustmq_sdk, embedded log",
        "embedded_log",
        note="acks one by one: `ack(durable=True)`; in groups: `ack()` each, committed as they come",
    ),
    Contender(
        "a table of jobs in SQLite, by hand",
        "job_table",
        note="claimed and finished by an UPDATE each, as job queues on PostgreSQL do (procrastinate, for one)",
    ),
    Contender(
        "litequeue",
        "lite_queue",
        consumes=(1,),
        note="set to synchronous=FULL; its own default, NORMAL, loses messages in a power failure",
    ),
    Contender("persist-queue, SQLiteAckQueue", "persist_queue", produces=(1,), consumes=(1,)),
    Contender(
        "huey, SqliteStorage",
        "huey_storage",
        produces=(1,),
        consumes=(1,),
        note="fsync=True; deletes a message when it hands it out, so a crash loses it",
    ),
    Contender("Redis Streams, appendfsync always", "redis_streams", service="redis"),
    Contender(
        "NATS JetStream, file storage",
        "nats_jetstream",
        service="nats",
        note="answers before the disk has it: syncs every two minutes",
    ),
)
