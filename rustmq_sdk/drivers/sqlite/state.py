"""Values under keys, written by compare-and-set."""

from __future__ import annotations

from rustmq_sdk.drivers.sqlite.file import LogFile
from rustmq_sdk.drivers.sqlite.transaction import Queries, Transaction
from rustmq_sdk.values import Version, Versioned


class SqliteStateStore:
    """Fills :class:`rustmq_sdk.slots.StateStore`; one of several in the file, told apart by name."""

    def __init__(self, file: LogFile, name: str) -> None:
        self._file = file
        self._name = name

    async def get(self, key: str) -> Versioned | None:
        return await self._file.read("state", "get", _get, self._name, key)

    async def put(self, key: str, value: bytes, *, if_version: Version | None) -> Version | None:
        """A lost outcome (``OutcomeUnknown``) is settled by a look at the version."""
        return await self._file.write("state", "put", _put, self._name, key, value, if_version)


def _get(queries: Queries, store: str, key: str) -> Versioned | None:
    row = queries.row("SELECT value, version FROM state WHERE store = ? AND key = ?", store, key)
    return None if row is None else Versioned(row[0], Version(row[1]))


def _put(transaction: Transaction, store: str, key: str, value: bytes, if_version: Version | None) -> Version | None:
    if if_version is None:
        sql = "INSERT INTO state (store, key, value, version) VALUES (?, ?, ?, 1) ON CONFLICT DO NOTHING"
        return Version(1) if transaction.execute(sql, store, key, value) else None

    if not isinstance(if_version.token, int):
        return None  # some other store's: it cannot be what this one has

    sql = "UPDATE state SET value = ?, version = version + 1 WHERE store = ? AND key = ? AND version = ?"
    changed = transaction.execute(sql, value, store, key, if_version.token)
    return Version(if_version.token + 1) if changed else None
