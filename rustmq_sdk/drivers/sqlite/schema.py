"""The tables, and the two numbers by which a file is recognised. ``docs/sqlite-format.md`` explains them."""

from __future__ import annotations

APPLICATION_ID = 0x524D5131
"""``RMQ1``; in the header of every file of ours, so that no other application's database is ever written to."""

FORMAT_VERSION = 1
"""``user_version``: grows with every change that an older release must not meet."""

PAGE_SIZE = 8192
"""A batch of 500 small messages fills a few pages of this size: 15 to 25 % quicker to append than pages of 4096."""

TABLES = """
CREATE TABLE topic (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    partitions INTEGER NOT NULL,
    retention_age REAL,
    retention_bytes INTEGER
) STRICT;

CREATE TABLE partition (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    topic INTEGER NOT NULL REFERENCES topic (id),
    number INTEGER NOT NULL,
    start INTEGER NOT NULL DEFAULT 0,
    next INTEGER NOT NULL DEFAULT 0,
    total INTEGER NOT NULL DEFAULT 0,
    newest_ms INTEGER NOT NULL DEFAULT 0,
    UNIQUE (topic, number)
) STRICT;

CREATE TABLE batch (
    partition INTEGER NOT NULL,
    base INTEGER NOT NULL,
    count INTEGER NOT NULL,
    first_ms INTEGER NOT NULL,
    last_ms INTEGER NOT NULL,
    newest_ms INTEGER NOT NULL,
    total INTEGER NOT NULL,
    largest INTEGER NOT NULL,
    crc INTEGER NOT NULL,
    data BLOB NOT NULL
) STRICT;

CREATE UNIQUE INDEX batch_by_base ON batch (partition, base);

CREATE TABLE producer (
    partition INTEGER NOT NULL,
    id BLOB NOT NULL,
    seen_ms INTEGER NOT NULL,
    appends BLOB NOT NULL,
    PRIMARY KEY (partition, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE consumer_group (
    name TEXT PRIMARY KEY,
    seen_ms INTEGER NOT NULL,
    past_epoch INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE TABLE member (
    consumer_group TEXT NOT NULL,
    id BLOB NOT NULL,
    beat INTEGER NOT NULL DEFAULT 0,
    topics TEXT NOT NULL,
    lock INTEGER,
    protocol INTEGER NOT NULL DEFAULT 1,
    PRIMARY KEY (consumer_group, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE claim (
    consumer_group TEXT NOT NULL,
    partition INTEGER NOT NULL,
    owner BLOB,
    epoch INTEGER NOT NULL DEFAULT 0,
    wanted_by BLOB,
    position INTEGER,
    extra BLOB NOT NULL DEFAULT x'',
    freed TEXT,
    PRIMARY KEY (consumer_group, partition)
) STRICT;

CREATE TABLE state (
    store TEXT NOT NULL,
    key TEXT NOT NULL,
    value BLOB NOT NULL,
    version INTEGER NOT NULL,
    PRIMARY KEY (store, key)
) STRICT;
"""

ADDED = (
    ("consumer_group", "past_epoch", "INTEGER NOT NULL DEFAULT 0"),
    ("member", "lock", "INTEGER"),
    ("member", "protocol", "INTEGER NOT NULL DEFAULT 1"),
    ("claim", "freed", "TEXT"),
)
"""Columns that files of this format may lack: table, name, type. An older release can go on beside them."""
