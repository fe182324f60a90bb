"""aiokafka's log lines about what this package raises, logs or handles itself: at DEBUG instead of INFO and above.

Only those of the clients that were started here. A program may use aiokafka beside us, and there the lines are all that
is said.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

SAID_BY_US = {
    "aiokafka.cluster": (
        "Topic %s not found in cluster metadata",  # UnknownTopic, or the warning topic_missing
    ),
    "aiokafka.coordinator.assignors.roundrobin": (
        "No partition metadata for topic %s",  # the same
    ),
    "aiokafka.consumer.consumer": (
        "Subscribed to topic(s): %s",  # which the program has just written
        "Subscribed to topic pattern: %s",
    ),
    "aiokafka.consumer.subscription_state": (
        "Updating subscribed topics to: %s",  # the same
    ),
    "aiokafka.consumer.group_coordinator": (
        "Revoking previously assigned partitions %s for group %s",  # "revoked", when handlers have finished
        "(Re-)joining group %s",  # the steps from there to "assigned"; health() says that they take long
        "Joined group '%s' (generation %s) with member_id %s",
        "Elected group leader -- performing partition assignments using %s",
        "Successfully synced group %s with generation %s",
        "Setting newly assigned partitions %s for group %s",  # "assigned" and "lost"
        "Heartbeat failed for group %s because it is rebalancing",  # which is how a rebalance begins
        "OffsetCommit failed for group %s due to group error (%s), will rejoin",  # tried again, or fenced and told
        "Attempt to join group failed due to fatal error: %s",  # the fetch raises it
    ),
}
"""The lines by their loggers."""

_ours = ContextVar("_ours", default=False)


@contextmanager
def said_by_us() -> Iterator[None]:
    """For whatever starts tasks of aiokafka's. They keep it for as long as they live; whoever started them does not."""
    for name in SAID_BY_US:
        logging.getLogger(name).addFilter(_lowers)

    token = _ours.set(True)
    try:
        yield
    finally:
        _ours.reset(token)


class _Lowers(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        if not _ours.get() or record.msg not in SAID_BY_US[record.name]:
            return True

        record.levelno, record.levelname = logging.DEBUG, logging.getLevelName(logging.DEBUG)
        return logging.getLogger(record.name).isEnabledFor(logging.DEBUG)


_lowers = _Lowers()
