"""litequeue: a table, one row a message; a message is locked when it is popped and done when it is done."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from time import perf_counter

from litequeue import LiteQueue  # type: ignore[import-untyped]

from bench.contenders import PAYLOAD

TEXT = PAYLOAD.decode()


def produce(place: str, messages: int, group: int) -> float:
    queue = _open(place)
    began = perf_counter()
    for start in range(0, messages, group):
        with queue.transaction() if group > 1 else nullcontext():
            for _ in range(min(group, messages - start)):
                queue.put(TEXT)

    took = perf_counter() - began
    queue.close()
    return took


def consume(place: str, messages: int, group: int) -> float:
    assert group == 1
    queue = _open(place)
    began = perf_counter()
    for _ in range(messages):
        message = queue.pop()
        assert message.data == TEXT
        queue.done(message.message_id)

    took = perf_counter() - began
    queue.close()
    return took


def _open(place: str) -> LiteQueue:
    queue = LiteQueue(Path(place) / "lite.db")
    queue.conn.execute("PRAGMA synchronous = FULL")
    return queue
