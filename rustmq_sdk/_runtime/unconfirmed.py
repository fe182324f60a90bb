"""Since when the broker confirms nothing of what it is told: whatever the reason, and if no call says one."""

from __future__ import annotations

import logging
from collections.abc import Collection

from rustmq_sdk._log import log
from rustmq_sdk._runtime.session import Session
from rustmq_sdk.errors import TransientDriverError
from rustmq_sdk.observe import Reason
from rustmq_sdk.values import TopicPartition

INTERVALS = 3
"""Commit intervals without a confirmation that are worth saying; a rebalance makes one or two."""
AT_LEAST = 1.0
"""Seconds: with short intervals a slow commit is no trouble."""


class Unconfirmed:
    """Told by the writer of every attempt and its end; asked by ``health()``.

    An attempt may fail, hang, or be answered by "not now" (RETRY): the last is how a rebalance looks, and also how a
    driver says that its disk is full. Only time tells them apart.

    Args:
        operation: of the driver, for errors.
        what: is written, with a place for how many.
    """

    def __init__(self, session: Session, *, operation: str, what: str) -> None:
        self._session = session
        self._operation = operation
        self._what = what
        self._since: float | None = None
        self.error: Exception | None = None
        """Of the latest attempt that said why; None once one was confirmed."""

    def begins(self) -> None:
        """Something is about to be written."""
        if self._since is None:
            self._since = self._session.clock()

    def confirmed(self) -> None:
        """All of it is written, or nothing is left to write."""
        self._since = self.error = None

    def failed(self, error: Exception, left: Collection[TopicPartition]) -> None:
        """It is not written. What is said is logged, and told to observers.

        ``left``: of each thing that is not, where it belongs.
        """
        if isinstance(error, TimeoutError):
            problem = f"no answer within {self._session.config.commit_timeout} s"
            error = TransientDriverError(problem, slot="source", operation=self._operation)

        self.error = error
        log(logging.WARNING, "commit_failed", "%s failed: %s", self._what.format(len(left)), error)
        self._session.observers("commit_failed", list(dict.fromkeys(left)), str(error))

    def put_off(self, left: Collection[TopicPartition]) -> None:
        """The driver says "not now". That is said once, when it has gone on for too long."""
        if self.error is None and self._too_long():
            problem = f"the driver has put it off for {self._lasts:.0f} s, without an error"
            self.failed(TransientDriverError(problem, slot="source", operation=self._operation), left)

    def reason(self) -> Reason | None:
        """For ``health()``."""
        if self.error is not None:
            return Reason("commit_failing", f"the last commit failed: {self.error}", since=self._lasts)

        if self._too_long():
            return Reason("commit_failing", f"no commit was confirmed for {self._lasts:.0f} s", since=self._lasts)

        return None

    @property
    def _lasts(self) -> float:
        return 0.0 if self._since is None else self._session.clock() - self._since

    def _too_long(self) -> bool:
        config = self._session.config
        return self._lasts > min(max(INTERVALS * config.commit_interval, AT_LEAST), config.commit_timeout)
