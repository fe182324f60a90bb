"""What a program that is to die does besides sending and consuming, and whether it was done by halves.

A topic whose retention deletes nearly everything at once, topics that come and go, and a counter in a state store.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from unittest.mock import patch

from rustmq_sdk.drivers import sqlite
from rustmq_sdk.drivers.sqlite import housekeeping
from rustmq_sdk.errors import UnknownTopic
from rustmq_sdk.slots import Driver, StateStore
from rustmq_sdk.values import OutgoingMessage
from tests.kills.journal import Event, Journal
from tests.kills.lives import Place

PASSING, BRIEF = "passing", "brief"
STORE, KEY = "chores", "count"
ROUNDS = 4


async def do_chores(url: str, journal: Journal) -> None:
    """All of them, a few times."""
    # Nobody tries again here what others have kept locked, or a machine that stood still.
    with patch.object(housekeeping, "RETENTION_SECONDS", 0.0):
        async with sqlite.open(f"{url}?busy_timeout=30") as driver:
            await _do_chores(driver, journal)


async def _do_chores(driver: Driver, journal: Journal) -> None:
    admin, sink = driver.admin(), driver.sink()
    await admin.create_topic(PASSING, 2, {"retention_bytes": 300})
    for number in range(ROUNDS):
        await _count(driver.state_store(STORE), journal)
        for partition in range(2):
            await sink.append(PASSING, partition, [OutgoingMessage(b"%d" % number * 100)], sequence=None)

        await admin.create_topic(BRIEF, 2, {})
        await sink.append(BRIEF, 1, [OutgoingMessage(b"soon gone")], sequence=None)
        try:
            await admin.delete_topic(BRIEF)
        except UnknownTopic:
            raise AssertionError("a topic that was made is gone") from None


async def _count(store: StateStore, journal: Journal) -> None:
    before = await store.get(KEY)
    number = 1 if before is None else int(before.value) + 1
    journal.note("counting", number)
    version = await store.put(KEY, b"%d" % number, if_version=None if before is None else before.version)
    assert version is not None, "nobody else counts"
    journal.note("counted", number)


async def counter(url: str) -> int:
    """What is in the state store."""
    async with sqlite.open(url) as driver:
        found = await driver.state_store(STORE).get(KEY)
        return 0 if found is None else int(found.value)


def miscounted(events: Iterable[Event], count: int) -> list[str]:
    """What is wrong with the counter."""
    told = dict.fromkeys(("counting", "counted"), 0)
    for event in events:
        if event.what in told:
            told[event.what] = max(told[event.what], int(event.details[0]))

    if told["counted"] <= count <= told["counting"]:
        return []

    return [
        f"the counter stands at {count}; it was set to {told['counted']}, and never to more than {told['counting']}"
    ]


def not_buried(events: Sequence[Event], buried: Mapping[str, Sequence[Place]]) -> list[str]:
    """Messages that were rejected the last time they were handled, and are not among the dead letters."""
    last: dict[str, str] = {}
    for event in events:
        if event.what in ("handling", "rejecting"):
            last[event.details[0]] = event.what

    return [
        f"{message} was rejected, and is not among the dead letters"
        for message, what in sorted(last.items())
        if what == "rejecting" and message not in buried
    ]
