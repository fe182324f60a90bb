"""The periods of a consumer, and that they fit each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rustmq_sdk.drivers.kafka.options import KafkaOptions
from rustmq_sdk.errors import ConfigurationError
from rustmq_sdk.slots import SourceRequest

MARGIN = 5.0
"""Seconds between the revoke budget and the rebalance timeout: for the commit, the callbacks and the JoinGroup."""
REQUEST_MARGIN = 10.0
"""Seconds between the rebalance timeout and that of a request: a JoinGroup is answered when the last one has joined."""
MAX_POLL_INTERVAL = 300.0
"""Seconds without a fetch after which aiokafka leaves the group. Fetches come at least once a second, busy or not."""


@dataclass(frozen=True)
class Timing:
    """All in seconds.

    Attributes:
        session: silence after which the group takes a member for dead.
        session_from: the setting that says so.
        heartbeat: between two signs of life; a tenth of the session, as 3 s of 30.
        budget: what handlers may need when partitions move.
        rebalance: how long the group waits for a member that has to give up partitions.
        request: the longest wait for any answer.
    """

    session: float
    heartbeat: float
    budget: float
    rebalance: float
    request: float
    max_poll_interval: float = MAX_POLL_INTERVAL
    session_from: Literal["lease", "session_timeout"] = "lease"

    def session_refused(self) -> ConfigurationError:
        """The error for a session that the brokers do not allow."""
        return ConfigurationError(
            "the brokers do not allow a session timeout of so many seconds",
            field=self.session_from,
            value=self.session,
            fix=f"Choose {self.session_from} between the brokers' group.min.session.timeout.ms and "
            "group.max.session.timeout.ms, 6 s and 1,800 s unless they were set",
        )

    @classmethod
    def of(cls, options: KafkaOptions, request: SourceRequest) -> Timing:
        """From the options, and where they say nothing from the consumer's own settings.

        Raises:
            ConfigurationError: a rebalance would be over before handlers have had their time, or an answer be given up
                before it can come.
        """
        session = options.session_timeout or request.lease
        rebalance = options.rebalance_timeout or max(session, request.revoke_budget + MARGIN)
        answer = options.request_timeout or rebalance + REQUEST_MARGIN
        if rebalance <= request.revoke_budget:
            raise ConfigurationError(
                f"handlers may take {request.revoke_budget:g} s to finish when partitions move (close_timeout)",
                field="rebalance_timeout",
                value=rebalance,
                fix="Raise rebalance_timeout, or lower close_timeout",
            )

        if answer <= rebalance:
            raise ConfigurationError(
                f"a member that joins is answered after up to {rebalance:g} s (rebalance_timeout)",
                field="request_timeout",
                value=answer,
                fix="Raise request_timeout, or lower rebalance_timeout",
            )

        named: Literal["lease", "session_timeout"] = "session_timeout" if options.session_timeout else "lease"
        return cls(session, session / 10, request.revoke_budget, rebalance, answer, session_from=named)
