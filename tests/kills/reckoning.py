"""The account: what became of every message, from the journals and the log itself. Pure.

A message may be handled twice for a reason: its attempt failed; whoever had it was killed before it was settled, or
after its ack and before the next commit; whoever had it was stopped for so long that others took over, or cancelled;
or was cut off; or it was rejected, and its partition moved before its letter was written. Everything else is a broken
promise, and named.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from tests.kills.journal import Event

SETTLED = ("recorded", "durable", "pending", "rejected")
EXPIRED = ("expired", "fenced")
"""Why a partition goes that is taken away without being asked for."""
FATES = ("acking", *SETTLED, "failed", "stale", "duplicate")

Place = tuple[int, int]
"""Partition and offset."""


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


def reckon(events: Sequence[Event], stored: Mapping[str, Sequence[Place]]) -> Account:
    """The account of a run.

    Args:
        events: of all journals, by time.
        stored: what the log has: each payload, and where.
    """
    account = Account(stored=len(stored))
    _sends(account, events, stored)
    lives = Lives(events)
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

        for reason in _repeats(history, lives):
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
    """What nobody has settled, nor was killed or cancelled while doing so: the commit may have been quicker."""
    killed = {event.details[0] for event in events if event.what in ("killed", "cancelled")}
    settled: set[str] = set()
    last: dict[tuple[str, str], str] = {}
    for event in events:
        if event.what in SETTLED:
            settled.add(event.details[0])
        elif event.what == "handling" or event.what in FATES:
            last[event.who, event.details[0]] = event.what

    # Only what a process said last: one that heard afterwards that its ack came too late has settled nothing.
    settled |= {message for (who, message), what in last.items() if what == "acking" and who in killed}
    return sorted(set(stored) - settled)


class Commit(NamedTuple):
    """What the broker has confirmed of a partition."""

    at: int
    who: str
    watermark: int
    above: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, event: Event) -> Commit:
        """Of a line ``committed PARTITION WATERMARK FIRST-END FIRST-END …``."""
        runs = [text.split("-") for text in event.details[2:]]
        return cls(event.at, event.who, int(event.details[1]), tuple((int(first), int(end)) for first, end in runs))

    def covers(self, offset: int) -> bool:
        """Whether it says that this message is settled."""
        return offset < self.watermark or any(first <= offset < end for first, end in self.above)


class Lives:
    """When processes were killed, cancelled and stopped, and what was committed when."""

    def __init__(self, events: Iterable[Event]) -> None:
        self.killed: dict[str, int] = {}
        self.cancelled: dict[str, int] = {}
        self.stopped: dict[str, list[int]] = defaultdict(list)
        self.expired: dict[str, list[int]] = defaultdict(list)
        self.troubled: list[int] = []
        self.committed: dict[int, list[Commit]] = defaultdict(list)
        for event in events:
            if event.what == "killed":
                self.killed[event.details[0]] = event.at
            elif event.what == "cancelled":
                self.cancelled[event.details[0]] = event.at
            elif event.what == "rebalanced" and event.details[2] in EXPIRED:
                self.expired[event.who].append(event.at)
            elif event.what == "troubled":
                self.troubled.append(event.at)
            elif event.what == "stopped":
                self.stopped[event.details[0]].append(event.at)
            elif event.what == "committed":
                self.committed[int(event.details[0])].append(Commit.of(event))

    def was_killed(self, who: str, before: int) -> bool:
        """Whether a process did not live to see that time."""
        return self.killed.get(who, before) < before

    def was_cancelled(self, who: str, before: int) -> bool:
        """Whether everything of a consumer was cancelled before that time, its handlers included."""
        return self.cancelled.get(who, before) < before

    def was_expired(self, who: str, since: int, before: int) -> bool:
        """Whether the others took a living process for dead at some time between the two, or may have done so.

        Who is cut off is told that it was expired, or finds out by what it is given when it joins again.
        """
        return any(since < at < before for at in (*self.expired[who], *self.troubled))

    def was_stopped(self, who: str, since: int, before: int) -> bool:
        """Whether a process stood still at some time between the two."""
        return any(since <= at < before for at in self.stopped[who])

    def is_covered(self, place: Place, before: int) -> bool:
        """Whether a commit was confirmed before that time that says the message is settled."""
        partition, offset = place
        return any(commit.at < before and commit.covers(offset) for commit in self.committed[partition])

    @property
    def remembered(self) -> int:
        """Messages above the watermark in the last commits of consumers that were killed, before anybody else's."""
        count = 0
        for who, at in self.killed.items():
            for commits in self.committed.values():
                last = max((commit for commit in commits if commit.at < at), default=None)
                if last is not None and last.who == who:
                    count += sum(end - first for first, end in last.above)

        return count


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


def _repeats(history: Sequence[Event], lives: Lives) -> Iterator[str]:
    """Why each handling after the first took place; what must not be begins with ``!``."""
    handlings = [event for event in history if event.what == "handling"]
    for before, after in pairwise(handlings):
        fate = _fate(history, before)
        yield _reason(before, after, fate, lives)


def _fate(history: Sequence[Event], handling: Event) -> Event | None:
    """What the same process said last of this attempt."""
    fate = None
    for event in history:
        if event.who == handling.who and event.at > handling.at:
            if event.what == "handling":
                break

            fate = event

    return fate


def _reason(before: Event, after: Event, fate: Event | None, lives: Lives) -> str:
    if fate is not None and fate.what == "failed" and fate.at < after.at:
        return "its attempt had failed"

    # A process that stood still may have had the message at hand all the time, before and after others took it over.
    stopped = lives.was_stopped(before.who, before.at, after.at) or lives.was_stopped(after.who, 0, after.at)
    place = (int(before.details[1]), int(before.details[2]))
    if fate is not None and fate.what == "durable" and fate.at < after.at:
        return "in the hands of a process that had stood still" if stopped else "!handled after it was acked durably"

    if lives.is_covered(place, after.at) and before.at < after.at and not stopped:
        return "!handled after a commit had covered it"

    if stopped:
        return "in the hands of a process that had stood still"

    killed = lives.was_killed(before.who, after.at)
    if killed or lives.was_cancelled(before.who, after.at):
        end = "killed" if killed else "cancelled"
        return f"acked, not committed when {end}" if fate is not None else f"unsettled when {end}"

    return _excuse(before, after, fate, lives) or f"!handled by {before.who} and by {after.who} for no reason"


def _excuse(before: Event, after: Event, fate: Event | None, lives: Lives) -> str | None:
    """Why a partition moved while somebody who lived on had the message."""
    if lives.was_expired(before.who, before.at, after.at):
        return "in the hands of a process that nobody could hear"

    moved = fate is not None and fate.what == "rejected" and _epoch(before) != _epoch(after)
    return "rejected, its letter not written when its partition moved" if moved else None


def _epoch(handling: Event) -> str:
    return handling.details[3]


def _shared_epochs(events: Iterable[Event]) -> Iterator[str]:
    owners: dict[tuple[str, str], set[str]] = defaultdict(set)
    for event in events:
        if event.what == "handling":
            owners[event.details[1], _epoch(event)].add(event.who)

    for (partition, epoch), names in sorted(owners.items()):
        if len(names) > 1:
            yield f"partition {partition} had several owners in epoch {epoch}: {', '.join(sorted(names))}"


def _late_owners(events: Iterable[Event], lives: Lives) -> Iterator[str]:
    """Who began to handle messages of a partition after the next owner had."""
    newest: dict[str, tuple[int, str]] = {}
    for event in events:
        if event.what != "handling" or not _epoch(event).isdigit():
            continue

        partition, epoch = event.details[1], int(_epoch(event))
        last, owner = newest.get(partition, (-1, ""))
        if epoch < last and not lives.was_stopped(event.who, 0, event.at):
            yield f"partition {partition} was handled by {event.who} in epoch {epoch} after {owner} in epoch {last}"

        if epoch > last:
            newest[partition] = epoch, event.who


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
