"""Answers to "what is going on?": statistics, health, and the one line about what is waited for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rustmq_sdk._core.lane import Lane
from rustmq_sdk._core.log_book import LogBook
from rustmq_sdk._error_text import name_and_text
from rustmq_sdk._runtime.session import Session
from rustmq_sdk._runtime.watch import SETTLE_IT
from rustmq_sdk.observe import Health, PartitionStatistics, Reason, Statistics
from rustmq_sdk.values import TopicPartition

if TYPE_CHECKING:
    from rustmq_sdk._runtime.wiring import Parts

_OK = (
    "paused",
    "max_in_flight",
    "max_uncommitted",
    "max_span",
    "checkpoint_full",
    "no_partitions",
    "rebalancing",
)
"""Reasons that are how it should be: back-pressure, and waiting for what has not come yet."""


def statistics(session: Session, parts: Parts | None) -> Statistics:
    """Exact: open pieces are counted again."""
    for lane in session.lanes:
        session.recount(lane.ledger)

    counts = session.counts
    lanes = list(session.lanes)
    now = session.clock() if parts is not None else 0.0
    loaded = [
        piece.loaded_at
        for lane in lanes
        for piece in (*lane.ledger.open.values(), *lane.ledger.children.values())
        if piece.loaded_at
    ]
    return Statistics(
        received=counts.received,
        acked=counts.settled + sum(lane.ledger.settled_for_good for lane in lanes) - counts.settled_unacked,
        nacked=counts.nacked,
        rejected=counts.rejected,
        redelivered=counts.redelivered,
        dead_lettered=counts.dead_lettered,
        lost=counts.lost,
        commits=counts.commits,
        in_flight=sum(lane.ledger.in_flight for lane in lanes),
        buffered=session.buffer.backlog + sum(lane.parked_messages for lane in lanes),
        waiting_retry=parts.redelivery.waiting if parts is not None else 0,
        uncommitted=sum(lane.ledger.uncommitted for lane in lanes),
        oldest_unsettled=now - min(loaded) if loaded else None,
        circuits={name: breaker.state for name, breaker in session.circuits.items()},
        partitions={lane.ledger.assignment.tp: _partition(session, lane) for lane in lanes},
    )


def _partition(session: Session, lane: Lane) -> PartitionStatistics:
    ledger = lane.ledger
    return PartitionStatistics(
        position=session.buffer.position(lane),
        watermark=ledger.watermark,
        committed=ledger.written.offset if isinstance(ledger, LogBook) else 0,
        in_flight=ledger.in_flight,
        uncommitted=ledger.uncommitted,
        paused=lane.paused,
        stopped=lane.stopped is not None,
    )


def health(session: Session, parts: Parts | None) -> Health:
    """What holds something back, worst first."""
    reasons = list(_reasons(session, parts)) if parts is not None else []
    ok = session.failure is None and all(reason.code in _OK for reason in reasons)
    return Health(ok=ok, state=session.state, reasons=sorted(reasons, key=lambda reason: reason.code in _OK))


def explain(session: Session) -> str:
    """What a receiver that gets nothing is waiting for, in one line."""
    missing = [reason.text for reason in _missing_topics(session)]
    reasons = [*(reason.text for reason in _circuit_reasons(session)), *_last_errors(session), *missing]
    in_flight = sum(lane.ledger.in_flight for lane in session.lanes)
    if not session.lanes and not reasons and session.config.group is None:
        reasons.append("no partition is assigned yet")
    elif not session.lanes and not reasons:
        reasons.append(
            "no partition is assigned (other members of the group have all of them; one that does not answer any more "
            f"keeps its share for up to lease={session.config.lease:g} s)"
        )
    elif not reasons and in_flight >= session.config.max_in_flight:
        reasons.append(_unsettled(session, in_flight))
    elif not reasons:
        partitions = ", ".join(str(lane.ledger.assignment.tp) for lane in session.lanes)
        reasons.append(f"{partitions}: no message after the position")

    return "; ".join(reasons)


def _reasons(session: Session, parts: Parts) -> Iterator[Reason]:
    if session.failure is not None:
        yield Reason("failed", name_and_text(session.failure))

    if session.state == "stopping":
        yield Reason("closing", "the consumer is closing")

    if session.state == "running" and not session.lanes:
        yield Reason("no_partitions", "no partition is assigned")

    if (rebalancing := parts.partitions.rebalance.reason()) is not None:
        yield rebalancing

    yield from _circuit_reasons(session)
    yield from _missing_topics(session)
    yield from _lane_reasons(session, parts)
    yield from _trouble(session, parts)
    yield from _pressure(session, parts)


def _last_errors(session: Session) -> Iterator[str]:
    """Of calls that have failed since they last worked, and are tried on."""
    for name, breaker in session.circuits.items():
        if breaker.state == "closed" and breaker.last_error:
            yield f"{name} fails: {breaker.last_error}"


def _unsettled(session: Session, in_flight: int) -> str:
    return f"{in_flight} messages are unsettled (max_in_flight={session.config.max_in_flight}): ack some of them"


def _circuit_reasons(session: Session) -> Iterator[Reason]:
    for name, breaker in session.circuits.items():
        if breaker.state != "closed":
            text = f"circuit {name} is {breaker.state}, next probe in {breaker.retry_in:.0f} s: {breaker.last_error}"
            yield Reason("circuit_open", text)


def _missing_topics(session: Session) -> Iterator[Reason]:
    for topic, text in session.missing_topics.items():
        yield Reason("unknown_topic", text, TopicPartition(topic, None))


def _lane_reasons(session: Session, parts: Parts) -> Iterator[Reason]:
    now = session.clock()
    for lane in session.lanes:
        tp, ledger = lane.ledger.assignment.tp, lane.ledger
        if lane.stopped is not None:
            yield Reason("partition_stopped", str(lane.stopped), tp, lane.stopped.offset)

        if lane.paused:
            yield Reason("paused", f"{tp} is paused; resume_partitions() lets it go on", tp)

        holder = parts.watch.stalled.get(lane)
        if holder is not None:
            text = f"{tp.at(holder.offset)} is unsettled and holds the watermark. {SETTLE_IT}"
            yield Reason("stalled", text, tp, holder.offset, now - holder.since)

        if ledger.span >= session.config.max_span:
            text = f"nothing is fetched beyond max_span={session.config.max_span} offsets from the unsettled one"
            yield Reason("max_span", text, tp, ledger.watermark)

        if lane.pressed:
            text = "the checkpoint is nearly full of what is settled above the unsettled offset"
            yield Reason("checkpoint_full", text, tp, ledger.watermark)


def _trouble(session: Session, parts: Parts) -> Iterator[Reason]:
    unconfirmed = parts.writer.unconfirmed.reason()
    if unconfirmed is not None:
        yield unconfirmed

    if parts.letters is not None and parts.letters.failing_since is not None:
        since = session.clock() - parts.letters.failing_since
        yield Reason("dead_letters_failing", f"{parts.letters.waiting} dead letters cannot be written", since=since)


def _pressure(session: Session, parts: Parts) -> Iterator[Reason]:
    lanes = session.lanes
    if not lanes:
        return

    in_flight = sum(lane.ledger.in_flight for lane in lanes)
    if in_flight >= session.config.max_in_flight:
        holder = min(lanes, key=lambda lane: lane.ledger.watermark)
        text = _unsettled(session, in_flight)
        yield Reason("max_in_flight", text, holder.ledger.assignment.tp, holder.ledger.watermark)

    if parts.fetcher.intake.too_much_uncommitted(lanes):
        text = f"{session.config.max_uncommitted} settled messages are not committed (max_uncommitted)"
        yield Reason("max_uncommitted", text)
