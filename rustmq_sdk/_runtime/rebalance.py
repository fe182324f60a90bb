"""How long a rebalance takes: from the first partition that is asked back until each is ours again or somebody else's.

Nobody here waits for its end, and the group may wait for a member that was killed. So it is looked at with every fetch.
"""

from __future__ import annotations

import logging

from rustmq_sdk._core.ownership import Ownership
from rustmq_sdk._log import log
from rustmq_sdk._runtime.session import Session
from rustmq_sdk.observe import Reason

LONG = 5.0
"""Seconds that are worth saying: a group whose members all answer needs less."""


class Rebalance:
    """The one that is under way, if any."""

    def __init__(self, session: Session, ownership: Ownership) -> None:
        self._session = session
        self._ownership = ownership
        self._handlers_have = False
        self._since = 0.0
        self._reported = True

    @property
    def _is_under_way(self) -> bool:
        return self._handlers_have or self._ownership.released > 0

    def revokes(self) -> None:
        """Partitions are asked back: handlers may finish what they have."""
        if not self._is_under_way:
            self._since = self._session.clock()
            self._reported = False

        self._handlers_have = True

    def revoked(self) -> None:
        """They were given up; the group shares them out."""
        self._handlers_have = False

    def look(self) -> None:
        """Says it, once, if the rebalance takes long."""
        if self._reported or not self._is_under_way:
            return

        lasted = self._session.clock() - self._since
        if lasted >= LONG:
            self._reported = True
            log(logging.INFO, "rebalancing", "rebalancing for %.0f s: %s", lasted, self._text())

    def reason(self) -> Reason | None:
        """What is waited for; None where no rebalance is under way."""
        if not self._is_under_way:
            return None

        return Reason("rebalancing", self._text(), since=self._session.clock() - self._since)

    def _text(self) -> str:
        if self._handlers_have:
            return "partitions are being given back; waiting for what handlers hold"

        return (
            "partitions were given back; waiting for the group to share them out. That waits for every member, and for "
            f"one that does not answer any more up to lease={self._session.config.lease:g} s"
        )
