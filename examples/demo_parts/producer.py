"""The process that produces: it sends the feed at a pace one can watch."""

from __future__ import annotations

from threading import Event

import anyio

import rustmq_sdk
from demo_parts import feed
from demo_parts.journal import Journal
from demo_parts.lifeline import when_the_tour_ends

BATCHES_A_SECOND = 8


async def produce(url: str, topic: str, journal: Journal, *, seconds: float) -> None:
    """Sends the whole feed within so many seconds. The key is the network that recorded the event."""
    enough = Event()
    when_the_tour_ends(enough.set)
    events = feed.read()
    size = max(1, round(len(events) / (seconds * BATCHES_A_SECOND)))
    async with rustmq_sdk.Client(url) as client, client.producer() as producer:
        start = anyio.current_time()
        for first in range(0, len(events), size):
            if enough.is_set():
                return

            batch = events[first : first + size]
            await producer.send_batch(
                topic, [rustmq_sdk.OutgoingMessage(line, key=event.net.encode()) for event, line in batch]
            )
            for event, _ in batch:  # only now, when the log has them durably, do they count
                journal.note("published", event.id)

            await anyio.sleep_until(start + seconds * (first + len(batch)) / len(events))
