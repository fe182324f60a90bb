"""confluent-kafka, as it is delivered and tuned.

librdkafka stops fetching for a second when 100,000 messages wait. Tuned, for five milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from confluent_kafka import Consumer

from bench.children import say
from bench.compare.race import Gauge, Race, new_group

MOST = 500
COMMIT_EVERY = 5_000
TUNED = {"fetch.queue.backoff.ms": 5}
PATIENCE = 30.0


def consume(address: str, topic: str, messages: int, size: int, parts: int, tuned: bool) -> dict[str, Any]:
    race = Race(messages, size, parts)
    with _joined(address, topic, tuned=tuned) as consumer:
        commits = _consume(consumer, race)

    return race.found(commits)


def listen(address: str, topic: str, rate: int, seconds: float, tuned: bool) -> dict[str, float]:
    gauge = Gauge(rate, seconds)
    with _joined(address, topic, tuned=tuned) as consumer:
        say("ready")
        received = 0
        done = False
        while not done:
            # Not consume(): it waits until its batch is full, or the time is over.
            message = consumer.poll(1)
            if message is not None:
                done = gauge.take(message.value())
                received += 1
                if received % COMMIT_EVERY == 0:
                    consumer.commit(asynchronous=True)

    return gauge.found()


def _consume(consumer: Consumer, race: Race) -> int:
    received = committed = size = commits = 0
    for goal in race.goals():
        while received < goal:
            batch = consumer.consume(MOST, 1)
            received += len(batch)
            for message in batch:
                size += len(message.value())

            if received - committed >= COMMIT_EVERY:
                consumer.commit(asynchronous=True)
                commits += 1
                committed = received

    if received > committed:  # it is an error where there is nothing to commit
        consumer.commit(asynchronous=False)
        commits += 1

    race.stop(received, size)
    return commits


@contextmanager
def _joined(address: str, topic: str, *, tuned: bool) -> Iterator[Consumer]:
    """A consumer that has had its first message."""
    settings = {
        "bootstrap.servers": address,
        "group.id": new_group(),
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
    }
    consumer = Consumer(settings | (TUNED if tuned else {}))
    try:
        consumer.subscribe([topic])
        first = consumer.poll(PATIENCE)
        assert first is not None, f"no message within {PATIENCE:g} s"
        assert first.error() is None, first.error()
        yield consumer
    finally:
        consumer.close()
