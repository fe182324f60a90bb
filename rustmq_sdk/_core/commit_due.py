"""When a commit is due."""

from __future__ import annotations

from math import inf

from rustmq_sdk._backoff import pause_after
from rustmq_sdk.config import ConsumerConfig

SHORT_PAUSE = 0.05
"""Seconds that a commit waits for more when things go quiet, and between two commits under pressure."""
FIRST_BACKOFF = 0.1
"""Seconds after the first failed commit; they double up to the commit interval."""


class CommitDue:
    """Decides when the next commit is due: told the time, asked whenever something may have changed.

    Due is whatever comes first:

    * *count*: ``commit_every`` messages were settled since the last commit;
    * *age*: something settled since then waits for ``commit_interval``;
    * *idle*: nothing is in flight or buffered, so nothing will join soon: after a short pause;
    * *exposure*: ``max_uncommitted`` messages would run again after a crash, or the checkpoint's room is nearly used
      up, so intake stands still until a commit moves things on: at once, but a short pause after the commit before.

    What a commit could not cover (settled above an unsettled message, and no room to say so) makes none of these true
    again by itself: another commit would say the same.
    """

    def __init__(self, config: ConsumerConfig) -> None:
        self._every = config.commit_every
        self._interval = config.commit_interval
        self._max_uncommitted = config.max_uncommitted
        self._failures = 0
        self._just_committed = False
        self._committed_at = -inf
        self._left = self._newer = 0
        self._seen_at: float | None = None
        self._idle_at: float | None = None

    def due_in(self, *, now: float, uncommitted: int, since: float | None, idle: bool, pressed: bool) -> float | None:
        """Seconds until a commit is due: 0.0 is now, None is not before something is settled.

        Args:
            now: the loop's time.
            uncommitted: settled messages that no written checkpoint covers.
            since: when the first message was settled that the last commit has not seen; None: as far as known, none.
            idle: nothing is in flight or buffered.
            pressed: more than three quarters of a checkpoint's room are used.
        """
        if self._just_committed:
            self._just_committed = False
            self._committed_at = now
            self._left = max(0, uncommitted - self._newer)

        # Fewer than were left out: their partition is gone or its watermark has moved, so the rest is not new either.
        self._left = min(self._left, uncommitted)
        if since is None and uncommitted == self._left:
            self._seen_at = self._idle_at = None
            return None

        self._seen_at = _earliest(self._seen_at, now if since is None else since)
        self._idle_at = _earliest(self._idle_at, now) if idle else None
        return max(0.0, self._due_at(now, uncommitted, pressed) - now)

    def succeeded(self, newer: int = 0) -> None:
        """A commit was written, or there was nothing to write; ask :meth:`due_in` next.

        Args:
            newer: messages settled since it was prepared: the next one's.
        """
        self._failures = 0
        self._newer = newer
        self._just_committed = True
        self._seen_at = self._idle_at = None

    def failed(self) -> float:
        """A commit failed. Seconds not to commit for: 0.1, 0.2, 0.4 and so on up to ``commit_interval``."""
        pause = pause_after(self._failures, first=FIRST_BACKOFF, most=max(self._interval, FIRST_BACKOFF))
        self._failures += 1
        return pause

    def _due_at(self, now: float, uncommitted: int, pressed: bool) -> float:
        if uncommitted - self._left >= self._every:
            return now

        at = inf if self._seen_at is None else self._seen_at + self._interval
        if self._idle_at is not None:
            at = min(at, self._idle_at + SHORT_PAUSE)

        if pressed or uncommitted >= self._max_uncommitted:
            at = min(at, self._committed_at + SHORT_PAUSE)

        return at


def _earliest(before: float | None, now: float) -> float:
    return now if before is None else min(before, now)
