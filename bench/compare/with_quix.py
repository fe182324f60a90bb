"""Quix Streams: a dataframe with one update()."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

from quixstreams import Application
from quixstreams.kafka.consumer import BaseConsumer

from bench.children import say
from bench.compare.race import Gauge, Race, new_group

COMMIT_EVERY = 5_000


def consume(address: str, topic: str, messages: int, size: int, parts: int) -> dict[str, Any]:
    race = Race(messages, size, parts)
    commits = _counted()
    received = seen = 0

    def take(body: bytes) -> bool:
        nonlocal received, seen
        if not received:
            race.begin()
        else:
            seen += len(body)

        received += 1
        if received == messages + 1:
            race.stop(messages, seen)

        return received > messages

    _run(address, topic, take)
    return race.found(commits())


def listen(address: str, topic: str, rate: int, seconds: float) -> dict[str, float]:
    gauge = Gauge(rate, seconds)
    begun = False

    def take(body: bytes) -> bool:
        nonlocal begun
        if begun:
            return gauge.take(body)

        begun = True
        say("ready")
        return False

    _run(address, topic, take)
    return gauge.found()


def _run(address: str, topic: str, take: Callable[[bytes], bool]) -> None:
    with tempfile.TemporaryDirectory(prefix="bench-quix-") as folder:
        application = Application(
            broker_address=address,
            consumer_group=new_group(),
            auto_offset_reset="earliest",
            commit_every=COMMIT_EVERY,
            state_dir=folder,
            loglevel=None,
            auto_create_topics=False,
        )
        frame = application.dataframe(application.topic(topic, value_deserializer="bytes"))

        def update(body: bytes) -> None:
            if take(body):
                application.stop()

        frame.update(update)
        application.run()


def _counted() -> Callable[[], int]:
    """How many commits there were in this process."""
    count = 0
    commit = BaseConsumer.commit

    def counted(consumer: BaseConsumer, *positions: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        return commit(consumer, *positions, **options)

    BaseConsumer.commit = counted
    return lambda: count
