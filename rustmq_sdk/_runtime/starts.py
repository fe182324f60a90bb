"""Where a partition begins: at the group's committed position, or where ``start`` says."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Coroutine, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from rustmq_sdk._core.checkpoint import Remembered
from rustmq_sdk._core.log_book import LogBook
from rustmq_sdk._core.on_broker import OnBroker
from rustmq_sdk._log import log
from rustmq_sdk._moments import milliseconds
from rustmq_sdk._runtime.session import Session
from rustmq_sdk.errors import ConsumerStateError
from rustmq_sdk.values import Assignment, Checkpoint, TopicPartition


class Start(NamedTuple):
    """A place to begin.

    Attributes:
        offset: of the first message.
        movable: after a restart ``start`` would mean another place, and what came in between would never be delivered;
            so this one is to be committed at once.
        committed: the group's position, if it has one.
        remembered: what that says of messages above it.
    """

    offset: int
    movable: bool = False
    committed: Checkpoint | None = None
    remembered: Remembered | None = None

    def ledger(self, assignment: Assignment) -> LogBook:
        """A new one that begins here."""
        ledger = LogBook(assignment, self.offset, self.remembered)
        ledger.must_write = self.movable
        if self.committed is not None:
            ledger.on_broker = OnBroker(self.committed, stored=True)

        return ledger


async def find_starts(
    session: Session, ask: Callable[..., Coroutine[Any, Any, Any]], partitions: Collection[TopicPartition]
) -> Mapping[TopicPartition, Start]:
    """What ``start`` means in each of these partitions.

    Args:
        session: of a log.
        ask: calls the subscription, again while that fails for reasons that may pass.
        partitions: without a committed position.

    Raises:
        ConsumerStateError: it is ``"error"``.
        DriverError: the log does not say.
    """
    if not partitions:
        return {}

    start = session.config.start
    subscription = session.log
    if isinstance(start, int):
        ends = await ask(subscription.end_offsets, partitions)
        return {tp: _at(tp, start, ends[tp]) for tp in partitions}

    if start == "earliest":
        found = await ask(subscription.start_offsets, partitions)
    elif start == "latest":
        found = await ask(subscription.end_offsets, partitions)
    elif isinstance(start, datetime):
        moment = milliseconds("start", start)
        found = await ask(subscription.offsets_at, partitions, moment)
        if moment > session.wall():
            return _of_a_moment(found, await ask(subscription.end_offsets, partitions), start)
    else:
        raise ConsumerStateError(
            f"{', '.join(map(str, partitions))}: no committed position in group {session.config.group!r}, and "
            'start="error". Give start="earliest" or "latest", or commit a position first'
        )

    return {tp: Start(offset, movable=start == "latest") for tp, offset in found.items()}


def _of_a_moment(
    found: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int], start: datetime
) -> Mapping[TopicPartition, Start]:
    """Where the log has nothing of a moment to come it begins at its end; a restart may not begin at another."""
    beyond = {tp for tp, offset in found.items() if offset >= ends[tp]}
    for tp in sorted(beyond):
        text = "%s: start=%s is yet to come: it starts at its end, with what is sent from now on"
        log(logging.WARNING, "start_beyond_end", text, tp, start.isoformat())

    return {tp: Start(offset, movable=tp in beyond) for tp, offset in found.items()}


def _at(tp: TopicPartition, start: int, end: int) -> Start:
    if start <= end:
        return Start(start)

    # Waiting beyond the end, what is sent until the log has grown so far would be skipped, and nobody told.
    text = "%s ends at offset %d, and start=%d is beyond that: it starts at its end, with what is sent from now on"
    log(logging.WARNING, "start_beyond_end", text, tp, end, start)
    return Start(end, movable=True)
