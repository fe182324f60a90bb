"""The feed: one week of what the seismometers of the world recorded."""

from __future__ import annotations

import gzip
from pathlib import Path

import msgspec

FILE = Path(__file__).parents[1] / "data" / "earthquakes.ndjson.gz"


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
