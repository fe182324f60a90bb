"""persist-queue: SQLiteAckQueue, whose messages are marked when they are handed out and when they are acked."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter

from persistqueue import SQLiteAckQueue

from bench.contenders import PAYLOAD


def produce(place: str, messages: int, group: int) -> float:
    assert group == 1
    queue = _open(place)
    began = perf_counter()
    for _ in range(messages):
        queue.put(PAYLOAD)

    took = perf_counter() - began
    queue.close()
    return took


def consume(place: str, messages: int, group: int) -> float:
    assert group == 1
    queue = _open(place)
    began = perf_counter()
    for _ in range(messages):
        message = queue.get(block=False, raw=True)
        assert message["data"] == PAYLOAD
        queue.ack(id=message["pqid"])

    took = perf_counter() - began
    queue.close()
    return took


def _open(place: str) -> SQLiteAckQueue:
    return SQLiteAckQueue(str(Path(place) / "persist"), multithreading=True)
