"""What the journal keeps of owners and partitions."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from rustmq_sdk import Message, TopicPartition
from rustmq_sdk.drivers.memory.groups import Claim


class Violation(AssertionError):
    """A promise was broken."""


@dataclass(eq=False)
class Owner:
    """One life of one consumer, as the journal sees it: what it was told, counted by itself."""

    name: str
    ordered: bool = False
    """Handles by key, or by partition: never two of one key at once."""
    in_offset_order: bool = False
    """Hands out in offset order, and never holds back."""
    paused: set[TopicPartition] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)
    highest: dict[object, int] = field(default_factory=dict)
    seen: set[tuple[object, int]] = field(default_factory=set)
    running: dict[tuple[TopicPartition, bytes | None], Message] = field(default_factory=dict)
    assignments: int = 0
    memberships: list[Any] = field(default_factory=list)
    """Of its subscription: says which claims it holds, to tell a stale owner from the live one."""
    may_finish_until: float = 0.0
    """Asked to end in good order: until then no handler is cancelled."""
    dead: bool = False
    """Killed: whatever it still says counts for nothing."""


@dataclass
class Sought:
    """A seek that the broker does not know of yet."""

    claim: Claim
    offset: int
    since: set[int] = field(default_factory=set)


@dataclass
class Partition:
    """One partition's fate."""

    handled: set[int] = field(default_factory=set)
    """Acked, ever."""
    settled: set[int] = field(default_factory=set)
    """Acked or on the way to it, since the last seek backwards: what a committed position may cover."""
    under_way: Counter[int] = field(default_factory=Counter)
    """Acks without an answer: there may be one of an older attempt beside that of the newest."""
    excused: int = 0
    """Below this offset messages may be missing: a seek went past them on the user's word."""
    sought: Sought | None = None
    was_sought: bool = False
    starts: int = 0
    checked: int = 0
    """The last committed offset: everything below was checked."""
    nacks: Counter[int] = field(default_factory=Counter)
    finished: list[tuple[int, bytes | None]] = field(default_factory=list)
    """Offsets in the order in which they were first acked or given to the dead letters, with their keys."""
