"""When a commit is due, and until when nobody has to look."""

from __future__ import annotations

from math import inf
from typing import NamedTuple

from rustmq_sdk._backoff import pause_after
from rustmq_sdk.config import ConsumerConfig

SHORT_PAUSE = 0.05
"""Seconds that a commit waits for more when things go quiet, and between two commits under pressure."""
FIRST_BACKOFF = 0.1
"""Seconds after the first failed commit; they double up to the commit interval."""
PACE = 20
"""A checkpoint is not encoded again before so many times the time that it took last."""


class Levels(NamedTuple):
    """How things stand, looked up when the next commit is asked for.

    Attributes:
        uncommitted: settled messages, as far as counted, that no written checkpoint covers.
        in_flight: something was delivered and is not settled, as far as counted.
        pressed: more than three quarters of a checkpoint's room are used, or a queue waits for what goes back to it.
    """

    uncommitted: int
    in_flight: bool
    pressed: bool


class CommitDue:
    """Decides when the next commit is due: told the time, asked whenever something may have changed.

    Due is whatever comes first:

    * *count*: ``commit_every`` messages were settled since the last commit;
    * *age*: something settled since then waits for ``commit_interval``;
    * *idle*: nothing is in flight or buffered, so nothing will join soon: after a short pause;
    * *exposure*: ``max_uncommitted`` messages would run again after a crash, or the checkpoint's room is nearly used
      up, so intake stands still until a commit moves things on: at once, but a short pause after the commit before;
    * *look*: while something is in flight, every ``commit_interval``: acks of FREE slots tell nobody.

    What a commit could not cover (settled above an unsettled message, and no room to say so) makes none of these true
    again by itself: another commit would say the same. After a commit that failed none is due for a while; and an
    expensive one is followed by a pause (``PACE``).

    Args:
        config: of the consumer.
        by_itself: commits become due by what is settled; else only because somebody waits for one.
    """

    def __init__(self, config: ConsumerConfig, *, by_itself: bool = True) -> None:
        self._every = config.commit_every
        self._interval = config.commit_interval
        self._max_uncommitted = config.max_uncommitted
        self._by_itself = by_itself
        self._since: float | None = None
        """When the first message was settled that the last commit has not seen; None: as far as known, none was."""
        self._fresh = 0
        """Messages settled since then, as far as told."""
        self._full_at = self._every
        """So many fresh ones are the next reason to look at once."""
        self._left = 0
        """Messages that the last commit had no room for."""
        self._idle_since: float | None = None
        self._look_at: float | None = None
        self._wakes_at = inf
        self._committed_at = -inf
        self._failures = 0
        self._paused_until = self._paced_until = -inf

    # Told of what happens; each answers whether the one who waits for the next commit waits too long

    def settled(self, messages: int, *, quiet: bool) -> bool:
        """So many more were. Whether that may matter before the next look: then say when, by :meth:`notice`.

        ``quiet``: with them nothing is in flight or buffered. A busy consumer gets there at every fetch.
        """
        self._fresh += messages
        return self._by_itself and (quiet or self._since is None or self._fresh >= self._full_at)

    def notice(self, now: float, *, quiet: bool) -> bool:
        """Something was settled that may matter."""
        self.changed(now)
        full = self._fresh >= self._full_at
        if full:
            self._full_at += self._every

        return full or self._wakes_at > now + (SHORT_PAUSE if quiet else self._interval)

    def changed(self, now: float) -> bool:
        """There is something that the next commit should carry, settled or not."""
        first = self._since is None
        if first:
            self._since = now

        return first

    @property
    def looks(self) -> bool:
        """Somebody will look although nobody tells."""
        return self._look_at is not None

    def look_regularly(self, now: float) -> bool:
        """Something is in flight: from now on acks may go by that nobody is told of."""
        self._look_at = now + self._interval
        return self._wakes_at > self._look_at

    # Asked

    def due_in(self, now: float, levels: Levels, *, wanted: bool = False) -> float | None:
        """Seconds until a commit is due: 0.0 is now, None is not before something is settled.

        ``wanted``: somebody waits for one, whatever there is to commit.
        """
        due_at = self._due_at(now, levels)
        if wanted:
            return max(0.0, self._paused_until - now)

        if not self._by_itself or due_at == inf:
            return None

        return max(0.0, due_at - now, self._paused_until - now, self._paced_until - now)

    def wait(self, now: float, due: float | None, *, busy: bool) -> float | None:
        """Seconds to wait for being told, before looking again; None is for ever.

        Args:
            now: the loop's time.
            due: as :meth:`due_in` has just said.
            busy: something was told, or committed, a moment ago. Then it is looked again soon, whatever goes quiet or
                begins until then: nobody has to tell.
        """
        if busy:
            due = SHORT_PAUSE if due is None else min(due, SHORT_PAUSE)

        self._wakes_at = inf if due is None else now + due
        return due

    def paced_for(self, now: float) -> float:
        """Seconds until the next commit may be encoded."""
        return max(0.0, self._paced_until - now)

    # Told of commits

    def begins(self, now: float, *, took: float, in_flight: bool) -> None:
        """A commit of all that is settled is about to be written; it took ``took`` seconds to encode."""
        self._since = self._idle_since = None
        self._fresh = 0
        self._full_at = self._every
        self._look_at = now + self._interval if in_flight else None
        # With 100,000 in flight in random order a checkpoint takes 0.03 s to write down: that must not happen every
        # 5,000 messages. It may take a twentieth of the time, as far as the interval allows, which is promised; and a
        # process that was stopped here for a while has measured that.
        self._paced_until = now + min(PACE * took, self._interval)

    def succeeded(self, now: float, uncommitted: int) -> None:
        """It is written, or there was nothing to write. What is ``uncommitted`` now and is not fresh did not fit."""
        self._failures = 0
        self._committed_at = now
        self._left = max(0, uncommitted - self._fresh)

    def failed(self, now: float, *, at_least: float = 0.0) -> None:
        """It is not. None is due for 0.1, 0.2, 0.4 seconds and so on up to ``commit_interval``, or ``at_least``."""
        self.changed(now)
        pause = pause_after(self._failures, first=FIRST_BACKOFF, most=max(self._interval, FIRST_BACKOFF))
        self._failures += 1
        self._paused_until = now + max(pause, at_least)

    def _due_at(self, now: float, levels: Levels) -> float:
        """The time, pauses apart; infinite: not before something is settled."""
        look_at = self._look_at if levels.in_flight and self._look_at is not None else inf
        # Fewer than were left out: their partition is gone or its watermark has moved, so the rest is not new either.
        self._left = min(self._left, levels.uncommitted)
        if self._since is None and levels.uncommitted == self._left:
            self._idle_since = None
            return look_at

        # Settled without anybody being told: it counts from now on.
        self.changed(now)
        if levels.in_flight:
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = now

        return min(look_at, self._covers_at(now, levels))

    def _covers_at(self, now: float, levels: Levels) -> float:
        if levels.uncommitted - self._left >= self._every:
            return now

        assert self._since is not None
        at = self._since + self._interval
        if self._idle_since is not None:
            at = min(at, self._idle_since + SHORT_PAUSE)

        if levels.pressed or levels.uncommitted >= self._max_uncommitted:
            at = min(at, self._committed_at + SHORT_PAUSE)

        return at
