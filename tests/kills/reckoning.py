"""The account: what became of every message, from the journals and the log itself. Pure.

A message may be handled twice for a reason (``repeats.py``). Everything else is a broken promise, and named.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tests.kills.journal import Event
from tests.kills.lives import Bounds, Commit, Lives, Place
from tests.kills.repeats import epoch, repeats

SETTLED = ("recorded", "durable", "pending", "rejected")
FATES = ("acking", *SETTLED, "failed", "stale", "duplicate")


@dataclass
class Account:
    """What came of a run.

    Attributes:
        remembered: messages that were settled above a watermark, by the last commit before their consumer was killed:
            without what is written beside the watermark they would run again.
        again: why messages were handled once more, and how often for that reason.
        broken: promises that were not kept, in words.
    """

    confirmed: int = 0
    unknown: int = 0
    stored: int = 0
    handled: int = 0
    durable: int = 0
    remembered: int = 0
    kills: int = 0
    stops: int = 0
    lost: list[str] = field(default_factory=list)
    again: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether every promise was kept."""
        return not (self.lost or self.broken)

    def __str__(self) -> str:
        rows: list[tuple[str, object]] = [
            ("kills", self.kills),
            ("stops", self.stops),
            ("sends confirmed", self.confirmed),
            ("sends without an answer", self.unknown),
            ("stored", self.stored),
            ("handled", self.handled),
            ("acked durably", self.durable),
            ("remembered above the watermark of a killed one", self.remembered),
            *((f"handled again: {reason}", count) for reason, count in sorted(self.again.items())),
            ("lost", len(self.lost)),
            ("promises broken", len(self.broken)),
        ]
        lines = [f"{name:60s}{count:>9,}" for name, count in rows]
        return "\n".join([*lines, *self.lost[:20], *self.broken[:20]])


def reckon(events: Sequence[Event], stored: Mapping[str, Sequence[Place]], bounds: Bounds) -> Account:
    """The account of a run.

    Args:
        events: of all journals, by time.
        stored: what the log has: each payload, and where.
        bounds: of the consumers that took part.
    """
    account = Account(stored=len(stored))
    _sends(account, events, stored)
    lives = Lives(events, bounds)
    account.remembered = lives.remembered
    account.kills, account.stops = len(lives.killed), sum(map(len, lives.stopped.values()))
    by_message = _by_message(events)
    for message in stored:
        history = by_message.get(message, [])
        account.handled += any(event.what == "handling" for event in history)
        durable = sum(event.what == "durable" for event in history)
        account.durable += durable > 0
        if durable > 1:
            account.broken.append(f"{message} was acked durably {durable} times")

        for reason in repeats(history, lives):
            account.again[reason] += 1
            if reason.startswith("!"):
                account.broken.append(f"{message}: {reason[1:]}")

    account.lost += [
        f"{message} at {stored[message][0]} was stored, and nobody has settled it"
        for message in unsettled(events, stored)
    ]
    account.broken += [*_shared_epochs(events), *_late_owners(events, lives), *_passed_over(events, stored)]
    return account


def unsettled(events: Sequence[Event], stored: Iterable[str]) -> list[str]:
    """What nobody has settled, nor was killed or cancelled while doing so: the commit may have been quicker.

    Nor was cut off while it waited to hear of a commit that was confirmed, as the last one of a consumer may be whose
    time to close is over.
    """
    killed = {event.details[0] for event in events if event.what in ("killed", "cancelled")}
    settled: set[str] = set()
    last: dict[tuple[str, str], Event] = {}
    commits: list[tuple[int, Commit]] = []
    for event in events:
        if event.what in SETTLED:
            settled.add(event.details[0])
        elif event.what == "handling" or event.what in FATES:
            last[event.who, event.details[0]] = event
        elif event.what == "committed":
            commits.append((int(event.details[0]), Commit.of(event)))

    # Only what a process said last: one that heard afterwards that its ack came too late has settled nothing.
    for (who, message), event in last.items():
        if event.what == "acking" and message not in settled and (who in killed or _is_confirmed(event, commits)):
            settled.add(message)

    return sorted(set(stored) - settled)


def _is_confirmed(acking: Event, commits: Iterable[tuple[int, Commit]]) -> bool:
    partition, offset = int(acking.details[1]), int(acking.details[2])
    return any(
        commit.who == acking.who and commit.at > acking.at and number == partition and commit.covers(offset)
        for number, commit in commits
    )


def _sends(account: Account, events: Iterable[Event], stored: Mapping[str, Sequence[Place]]) -> None:
    begun: set[str] = set()
    confirmed: set[str] = set()
    for event in events:
        if event.what in ("sending", "sent"):
            name, first, end = event.who.split(".")[0], *map(int, event.details[:2])
            (begun if event.what == "sending" else confirmed).update(f"{name}:{number}" for number in range(first, end))

    account.confirmed, account.unknown = len(confirmed), len(begun - confirmed)
    account.broken += [f"{message} was confirmed, and is not in the log" for message in sorted(confirmed - set(stored))]
    account.broken += [f"{message} is in the log, and nobody has sent it" for message in sorted(set(stored) - begun)]
    account.broken += [
        f"{message} was sent once, and is in the log at {places}"
        for message, places in stored.items()
        if len(places) > 1
    ]


def _by_message(events: Iterable[Event]) -> dict[str, list[Event]]:
    histories: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        if event.what == "handling" or event.what in FATES:
            histories[event.details[0]].append(event)

    return histories


def _shared_epochs(events: Iterable[Event]) -> Iterator[str]:
    owners: dict[tuple[str, str], set[str]] = defaultdict(set)
    for event in events:
        if event.what == "handling":
            owners[event.details[1], epoch(event)].add(event.who)

    for (partition, number), names in sorted(owners.items()):
        if len(names) > 1:
            yield f"partition {partition} had several owners in epoch {number}: {', '.join(sorted(names))}"


def _late_owners(events: Iterable[Event], lives: Lives) -> Iterator[str]:
    """Who began to handle messages of a partition after the next owner had."""
    newest: dict[str, tuple[int, str]] = {}
    for event in events:
        if event.what != "handling" or not epoch(event).isdigit():
            continue

        partition, number = event.details[1], int(epoch(event))
        last, owner = newest.get(partition, (-1, ""))
        if number < last and lives.stood_still(event.who, int(partition), event.at) is None:
            yield f"partition {partition} was handled by {event.who} in epoch {number} after {owner} in epoch {last}"

        if number > last:
            newest[partition] = number, event.who


def _passed_over(events: Iterable[Event], stored: Mapping[str, Sequence[Place]]) -> Iterator[str]:
    """Messages that a commit says are settled, and nobody had begun to settle."""
    missing: dict[int, list[int]] = defaultdict(list)
    for partition, offset in sorted(place for places in stored.values() for place in places):
        missing[partition].append(offset)

    settled: set[Place] = set()
    for event in events:
        if event.what == "acking" or event.what in SETTLED:
            settled.add((int(event.details[1]), int(event.details[2])))
        elif event.what == "committed":
            partition, commit = int(event.details[0]), Commit.of(event)
            left = missing[partition]
            covered = bisect_left(left, commit.watermark)
            for offset in left[:covered]:
                if (partition, offset) not in settled:
                    yield f"a commit of {event.who} passed the unsettled offset {offset} of partition {partition}"

            del left[:covered]
            for first, end in commit.above:
                for offset in left[bisect_left(left, first) : bisect_left(left, end)]:
                    if (partition, offset) not in settled:
                        yield f"a commit of {event.who} has the unsettled offset {offset} of partition {partition}"
