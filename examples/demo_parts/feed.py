"""The feed: one week of what the seismometers of the world recorded, sent at a pace one can watch."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path

import anyio
import msgspec

import rustmq_sdk
from demo_parts.tally import Tally

FILE = Path(__file__).parents[1] / "data" / "earthquakes.ndjson.gz"
BATCHES_A_SECOND = 8


class Event(msgspec.Struct):
    """What the demo needs to know of one event; the message carries all of it."""

    id: str
    net: str
    mag: float
    place: str
    type: str


def read() -> list[tuple[Event, bytes]]:
    """The events in the order of the feed, each with the line it was read from."""
    with gzip.open(FILE) as lines:
        return [(msgspec.json.decode(line, type=Event), line.rstrip()) for line in lines]


async def publish(producer: rustmq_sdk.Producer, topic: str, tally: Tally, *, seconds: float) -> None:
    """Sends the whole feed within so many seconds. The key is the network that recorded the event."""
    feed = read()
    size = max(1, round(len(feed) / (seconds * BATCHES_A_SECOND)))
    start = anyio.current_time()
    for first in range(0, len(feed), size):
        batch = feed[first : first + size]
        await producer.send_batch(topic, _messages(batch))
        # Only now, when the log has them durably, do they count as published.
        tally.published.update(event.id for event, _ in batch)
        await anyio.sleep_until(start + seconds * (first + len(batch)) / len(feed))


def _messages(batch: Sequence[tuple[Event, bytes]]) -> list[rustmq_sdk.OutgoingMessage]:
    return [rustmq_sdk.OutgoingMessage(line, key=event.net.encode()) for event, line in batch]
