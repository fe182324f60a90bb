"""The handler: what a program does with one event. It knows nothing of offsets, commits and other consumers."""

from __future__ import annotations

from random import Random

import anyio
import msgspec

import rustmq_sdk
from demo_parts.feed import Event
from demo_parts.journal import Journal

STRONG = 5.0
"""Magnitude from which on an earthquake can damage buildings."""
FLAKY = 0.04
"""Of all events, how many meet a network that fails once or twice."""


class Alarm:
    """Raises an alarm on strong earthquakes; the journal is how the tour knows."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    async def __call__(self, message: rustmq_sdk.Message) -> None:
        """Returning acks, raising retries later, ``Reject`` goes to the dead letters, cancellation gives back."""
        event = msgspec.json.decode(message.payload or b"", type=Event)
        self._journal.note("taken", event.id)
        try:
            await examine(event, message.attempt)
        except BaseException:
            self._journal.note("put_down", event.id)
            raise

        alarm = f"magnitude {event.mag:.1f}  {event.place}" if event.mag >= STRONG else ""
        self._journal.note("handled", event.id, text=alarm)


async def examine(event: Event, attempt: int) -> None:
    if event.type != "earthquake":
        raise rustmq_sdk.Reject(f"not an earthquake: {event.type}")

    await look_up_the_neighbourhood(event, attempt)


async def look_up_the_neighbourhood(event: Event, attempt: int) -> None:
    """Stands for a call over a network: takes 10 ms, and fails once or twice for some events, the same ones always."""
    await anyio.sleep(0.01)
    luck = Random(event.id)
    failures = luck.choice((1, 2)) if luck.random() < FLAKY else 0
    if attempt <= failures:
        raise TimeoutError(f"nobody knows what is near {event.place}, yet")
