"""What happened to the processes of a run, and what the broker has confirmed to them: what reasons are judged by.

A kill, a stop or trouble is a reason for some repeats, not for all that come after it. Whose partition went away had
unsettled messages in its hands, and acks that were too young to be committed. An older ack, or a message that came into
its hands later, was not touched by it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from tests.kills.journal import Event

EXPIRED = ("expired", "fenced")
"""Why a partition goes that is taken away without being asked for."""

Place = tuple[int, int]
"""Partition and offset."""

SECOND = 1_000_000_000
NEVER = 1 << 63


class Bounds(NamedTuple):
    """How long a reason holds, in seconds."""

    commit_interval: float
    """Of the consumers: for so long an ack may wait until its commit begins."""
    lease: float
    """Of the consumers: so soon they notice, when they run again or are heard again, what became somebody else's."""
    slack: float = 0.5
    """What a slow machine may add to each of the two: the time that one commit may take, or one look at the group. A
    commit is one sync of the file; those of a busy disk take tenths of a second."""

    @property
    def commit(self) -> float:
        """How old an ack may be that is not committed."""
        return self.commit_interval + self.slack

    @property
    def notice(self) -> int:
        """How long after its return a process may believe that it has what is somebody else's. Nanoseconds."""
        return int((self.lease + self.slack) * SECOND)


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


class Move(NamedTuple):
    """A partition that a process says it has got, or lost."""

    at: int
    who: str
    got: bool
    reason: str

    @classmethod
    def of(cls, event: Event) -> Iterator[tuple[int, Move]]:
        """By partition, of a line ``rebalanced +[PARTITION,…] -[PARTITION,…] REASON``."""
        got, lost, reason = event.details
        for numbers in (got, lost):
            for number in filter(None, numbers[2:-1].split(",")):
                yield int(number), cls(event.at, event.who, numbers is got, reason)


class Span(NamedTuple):
    """From when to when."""

    began: int
    ended: int


class Lives:
    """When processes were killed, cancelled and stopped, who had which partition, and what was committed when."""

    def __init__(self, events: Iterable[Event], bounds: Bounds) -> None:
        self.bounds = bounds
        self.killed: dict[str, int] = {}
        self.cancelled: dict[str, int] = {}
        self.stopped: dict[str, list[Span]] = defaultdict(list)
        self.standstills: list[Span] = []
        self.troubled: list[Span] = []
        self._moves: dict[int, list[Move]] = defaultdict(list)
        self._committed: dict[int, list[Commit]] = defaultdict(list)
        for event in events:
            self._live(event)

    def _live(self, event: Event) -> None:
        if event.what == "killed":
            self.killed[event.details[0]] = event.at
        elif event.what == "cancelled":
            self.cancelled[event.details[0]] = event.at
        elif event.what == "rebalanced":
            for partition, move in Move.of(event):
                self._moves[partition].append(move)
        elif event.what == "committed":
            self._committed[int(event.details[0])].append(Commit.of(event))
        else:
            self._stand(event)

    def _stand(self, event: Event) -> None:
        if event.what == "stopped":
            self.stopped[event.details[0]].append(Span(event.at, NEVER))
        elif event.what == "continued":
            _end(self.stopped[event.details[0]], event.at)
        elif event.what == "standstill":
            self.standstills.append(Span(int(event.details[0]), event.at))
        elif event.what == "troubled":
            if not self.troubled or self.troubled[-1].ended < NEVER:
                self.troubled.append(Span(event.at, NEVER))
            else:
                _end(self.troubled, event.at)

    def gave_up(self, who: str, partition: int, since: int, before: int) -> Move | None:
        """Where a process said first between the two that it has lost a partition."""
        moves = self._moves[partition]
        lost = (move for move in moves if since < move.at < before and move.who == who and not move.got)
        return next(lost, None)

    def changed_hands(self, who: str, partition: int, since: int) -> int:
        """When it was first said after that time that a partition of this process is not its own any more."""
        moves = self._moves[partition]
        return next((move.at for move in moves if move.at > since and (move.who == who) is not move.got), NEVER)

    def stood_still(self, who: str, partition: int, at: int) -> Span | None:
        """When a process stood still that had this partition before, and may believe at that time that it has it.

        It alone, or all of them with their machine or their server.
        """
        has_it_since = self._has_since(who, partition, at)
        for span in sorted((*self.stopped[who], *self.standstills)):
            if has_it_since <= span.began and at <= span.ended + self.bounds.notice:
                return span

        return None

    def out_of_reach(self, since: int, before: int) -> bool:
        """Whether members could not be heard at some time between the two."""
        return any(since < span.ended + self.bounds.notice and span.began < before for span in self.troubled)

    def could_commit(self, who: str, since: int, until: int) -> float:
        """Seconds between the two in which the process neither stood still nor was out of reach."""
        troubled = (Span(began, ended + self.bounds.notice) for began, ended in self.troubled)
        could, left = 0, since
        for began, ended in sorted((*self.stopped[who], *self.standstills, *troubled)):
            could += max(0, min(began, until) - left)
            left = max(left, ended)

        return (could + max(0, until - left)) / SECOND

    def is_covered(self, place: Place, before: int) -> bool:
        """Whether a commit was confirmed before that time that says the message is settled."""
        partition, offset = place
        return any(commit.at < before and commit.covers(offset) for commit in self._committed[partition])

    @property
    def remembered(self) -> int:
        """Messages above the watermark in the last commits of consumers that were killed, before anybody else's."""
        count = 0
        for who, at in self.killed.items():
            for commits in self._committed.values():
                last = max((commit for commit in commits if commit.at < at), default=None)
                if last is not None and last.who == who:
                    count += sum(end - first for first, end in last.above)

        return count

    def _has_since(self, who: str, partition: int, at: int) -> int:
        """Since when a process has a partition that it has at that time; what it keeps it is told of again."""
        since: int | None = None
        for move in self._moves[partition]:
            if move.who == who and move.at < at:
                if not move.got:
                    since = None
                elif since is None:
                    since = move.at

        return since or 0


def _end(spans: list[Span], at: int) -> None:
    spans[-1] = spans[-1]._replace(ended=at)
