"""Why a message was handled more than once, and whether that is a reason. Pure.

Reasons are: its attempt failed; whoever had it was killed or cancelled; whoever had it stood still or could not be
heard, and its partition was given to others; it was rejected, and its partition moved before its letter was written.
They hold for what was unsettled then, and for acks that were younger than a commit may be (:class:`.lives.Bounds`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tests.kills.journal import Event
from tests.kills.lives import EXPIRED, Lives

ACKED = ("recorded", "pending", "rejected")
"""What is settled and is committed soon."""

STOOD_STILL = "in the hands of a process that had stood still"
UNHEARD = "in the hands of a process that nobody could hear"


class End(NamedTuple):
    """When a process lost what it had in its hands, and why."""

    at: int
    unsettled: str
    """Why a message runs again that was not settled then."""
    acked: str
    """Why one does that was acked, and not committed."""


def repeats(history: Sequence[Event], lives: Lives) -> Iterator[str]:
    """Why each handling after the first took place; what must not be begins with ``!``.

    Args:
        history: of one message, by time.
    """
    before: Event | None = None
    for after in history:
        if after.what != "handling":
            continue

        if before is not None and _is_late(before, after, lives):
            # It changes nothing: what comes after it has to have a reason of its own.
            yield STOOD_STILL
            continue

        if before is not None:
            yield _reason(history, before, after, lives)

        before = after


def epoch(handling: Event) -> str:
    """Of the consumer that handles it: grows with every owner of the partition."""
    return handling.details[3]


def _is_late(before: Event, after: Event, lives: Lives) -> bool:
    """Whether a process that stood still went on with what somebody else has had since."""
    partition, (theirs, its) = int(after.details[1]), (epoch(before), epoch(after))
    overtaken = theirs.isdigit() and its.isdigit() and int(theirs) > int(its)
    return overtaken and lives.stood_still(after.who, partition, after.at) is not None


def _reason(history: Sequence[Event], before: Event, after: Event, lives: Lives) -> str:
    fate = _fate(history, before)
    if fate is not None and fate.what == "failed" and fate.at < after.at:
        return "its attempt had failed"

    if any(event.what == "durable" and event.at < after.at for event in history):
        return "!handled after it was acked durably"

    if lives.is_covered((int(before.details[1]), int(before.details[2])), after.at):
        return "!handled after a commit had covered it"

    end = _end(before, after, lives)
    return _unexplained(before, after, fate) if end is None else _left_behind(before, fate, end, lives)


def _left_behind(before: Event, fate: Event | None, end: End, lives: Lives) -> str:
    """What the process left to others in the end."""
    if fate is None or fate.what not in ACKED:
        return end.unsettled

    waited = lives.could_commit(before.who, fate.at, end.at)
    if waited > lives.bounds.commit:
        return f"!{end.acked}, although {before.who} had {waited:.1f} s to commit its ack"

    return end.acked


def _unexplained(before: Event, after: Event, fate: Event | None) -> str:
    if fate is not None and fate.what == "rejected" and epoch(before) != epoch(after):
        return "rejected, its letter not written when its partition moved"

    return f"!handled by {before.who} and by {after.who} for no reason"


def _fate(history: Sequence[Event], handling: Event) -> Event | None:
    """What the same process said last of this attempt."""
    fate = None
    for event in history:
        if event.who == handling.who and event.at > handling.at:
            if event.what == "handling":
                break

            fate = event

    return fate


def _end(before: Event, after: Event, lives: Lives) -> End | None:
    """What happened to the one before the message came to the other; None if nothing did that would be a reason."""
    who, partition = before.who, int(before.details[1])
    gave_up = lives.gave_up(who, partition, before.at, after.at)
    for how, when in (("killed", lives.killed), ("cancelled", lives.cancelled)):
        at = when.get(who, after.at)
        # What it had given up before was not in its hands any more.
        if at < after.at and (gave_up is None or gave_up.at > at):
            return End(at, f"unsettled when {how}", f"acked, not committed when {how}")

    if epoch(before) == epoch(after):
        return None

    stood_still = lives.stood_still(who, partition, before.at)
    if stood_still is not None:
        # Also what it has begun before it noticed: that was at hand, and somebody else's already.
        at = lives.changed_hands(who, partition, min(before.at, stood_still.began))
        if stood_still.began < at < after.at and at <= stood_still.ended + lives.bounds.notice:
            return End(at, STOOD_STILL, STOOD_STILL)

    if (gave_up is not None and gave_up.reason in EXPIRED) or lives.out_of_reach(before.at, after.at):
        return End(min(lives.changed_hands(who, partition, before.at), after.at), UNHEARD, UNHEARD)

    return None
