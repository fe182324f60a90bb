"""The handler: what a program does with one event. It knows nothing of offsets, commits and other consumers."""

from __future__ import annotations

from random import Random

import anyio
import msgspec

import rustmq_sdk
from demo_parts.feed import Event
from demo_parts.screen import Screen
from demo_parts.tally import Tally

STRONG = 4.5
"""Magnitude from which on an earthquake is felt widely and damages buildings."""
FLAKY = 0.04
"""Of all events, how many meet a network that fails once or twice."""


class Alarm:
    """Raises an alarm on strong earthquakes.

    Args:
        name: of the consumer it works for.
        tally: takes note.
        screen: shows the alarms.
    """

    def __init__(self, name: str, tally: Tally, screen: Screen) -> None:
        self._name = name
        self._tally = tally
        self._screen = screen

    async def __call__(self, message: rustmq_sdk.Message) -> None:
        """Returning acks, raising retries later, ``Reject`` goes to the dead letters, cancellation gives back."""
        event = msgspec.json.decode(message.payload or b"", type=Event)
        self._tally.delivered[event.id] += 1
        self._tally.busy[self._name] += 1
        try:
            if event.type != "earthquake":
                raise rustmq_sdk.Reject(f"not an earthquake: {event.type}")

            await look_up_the_neighbourhood(event, message.attempt)
        finally:
            self._tally.busy[self._name] -= 1

        self._tally.handled[event.id] += 1
        if event.mag >= STRONG:
            self._tally.alarms += 1
            self._screen.say(f"ALARM  magnitude {event.mag:.1f}  {event.place}")


async def look_up_the_neighbourhood(event: Event, attempt: int) -> None:
    """Stands for a call over a network: takes 10 ms, and fails once or twice for some events, the same ones always."""
    await anyio.sleep(0.01)
    luck = Random(event.id)
    failures = luck.choice((1, 2)) if luck.random() < FLAKY else 0
    if attempt <= failures:
        raise TimeoutError(f"nobody knows what is near {event.place}, yet")
