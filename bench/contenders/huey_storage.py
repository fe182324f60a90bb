"""huey's storage in SQLite, without its workers: a message is deleted when it is handed out, and there is no ack."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter

from huey.storage import SqliteStorage  # type: ignore[import-untyped]

from bench.contenders import PAYLOAD


def produce(place: str, messages: int, group: int) -> float:
    assert group == 1
    storage = _open(place)
    began = perf_counter()
    for _ in range(messages):
        storage.enqueue(PAYLOAD)

    took = perf_counter() - began
    storage.close()
    return took


def consume(place: str, messages: int, group: int) -> float:
    assert group == 1
    storage = _open(place)
    began = perf_counter()
    for _ in range(messages):
        assert bytes(storage.dequeue()) == PAYLOAD

    took = perf_counter() - began
    storage.close()
    return took


def _open(place: str) -> SqliteStorage:
    return SqliteStorage(filename=str(Path(place) / "huey.db"), fsync=True)
