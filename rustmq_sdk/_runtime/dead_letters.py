"""The dead-letter route: the task that writes letters, and the three kinds of place they can go to.

A message's slot is settled only after its letter is durable, so no position passes a letter that is not written.
"""

from __future__ import annotations

import logging
import operator
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias, TypeVar

import anyio

from rustmq_sdk._backoff import pause_after
from rustmq_sdk._bell import Bell
from rustmq_sdk._core.ledger import Ledger
from rustmq_sdk._core.piece import Piece
from rustmq_sdk._error_text import text_of
from rustmq_sdk._log import log
from rustmq_sdk._runtime.breaker import MAY_PASS
from rustmq_sdk._runtime.session import Session
from rustmq_sdk.errors import NotAllStored
from rustmq_sdk.letters import as_message
from rustmq_sdk.message import STALE
from rustmq_sdk.slots import Sink
from rustmq_sdk.values import DeadLetter

BATCH = 100
"""Letters written in one go."""
PUT_TIMEOUT = 30.0
"""Seconds that one write may take; the same as a producer's ``send_timeout``."""
PAUSE = (0.5, 30.0)
"""Seconds after a failed write, doubled up to the second number; then the circuit takes over."""

T = TypeVar("T")
Put: TypeAlias = Callable[[Sequence[DeadLetter]], Awaitable[object]]


class Route(NamedTuple):
    """Where letters go."""

    put: Put
    """Durable on return."""
    places: Callable[[Sequence[DeadLetter]], Awaitable[Sequence[Hashable]]] | None = None
    """The place of each letter, if that is not one for all: a place may fail while others work."""


@dataclass(slots=True, eq=False)
class Letter:
    """A dead letter on its way, and the slot that is settled when it has arrived."""

    letter: DeadLetter
    parent: Piece
    index: int
    alone: bool = False
    """A batch that it was in was refused: it is written by itself."""

    @property
    def is_over(self) -> bool:
        """The partition was lost or moved by a seek: the message is delivered again, by whoever has it now."""
        return self.parent[self.index] == STALE


class DeadLetterWriter:
    """Writes letters in order, in batches, until they are durable.

    While the route is down the letters wait, and with them their messages: those count as in flight, so intake stops
    before memory runs out. A route that refuses a letter for good stops the letter's partition.

    Args:
        route: where they go.
        settle_slot: called for each letter's message once it is.
        on_refused: called for a letter that the route will never take.
    """

    def __init__(
        self,
        session: Session,
        route: Route,
        *,
        settle_slot: Callable[[Piece, int], None],
        on_refused: Callable[[Letter, Exception], None],
    ) -> None:
        self._session = session
        self._route = route
        self._settle_slot = settle_slot
        self._on_refused = on_refused
        self._circuit = session.circuit("dead_letters.put")
        self._bell = Bell()
        # Each stands for an unsettled message of ours, so max_in_flight bounds them; those of partitions that were lost
        # meanwhile are forgotten at once.
        self._waiting: list[Letter] = []
        self._failures = 0
        self._moved: anyio.Event | None = None
        self.failing_since: float | None = None

    @property
    def waiting(self) -> int:
        """Letters not yet written."""
        return len(self._waiting)

    def add(self, letter: Letter) -> None:
        """Takes over a letter; never waits."""
        self._waiting.append(letter)
        self._bell.ring()

    def forget_lost(self) -> None:
        """A partition was lost or moved by a seek: its letters stand for messages that come again."""
        self._waiting = [letter for letter in self._waiting if not letter.is_over]

    async def written(self) -> None:
        """Returns when no letter waits."""
        while self.waiting:
            await self._wait()

    async def written_of(self, ledgers: Collection[Ledger]) -> None:
        """Returns when no letter of these partitions waits, or the route is down and they may wait for long."""
        while self.failing_since is None and any(letter.parent.ledger in ledgers for letter in self._waiting):
            await self._wait()

    async def _wait(self) -> None:
        if self._moved is None:
            self._moved = anyio.Event()

        await self._moved.wait()

    def _tell(self) -> None:
        if self._moved is not None:
            self._moved.set()
            self._moved = None

    async def run(self) -> None:
        """Writes letters until cancelled."""
        while True:
            self.forget_lost()
            if not self._waiting:
                self._tell()
                await self._bell.wait(None)
                continue

            failed: Exception | None = None
            for part in await self._parts(self._waiting[:BATCH]):
                failed = await self._write(part) or failed

            if failed is None:
                self._failures = 0
                self.failing_since = None
            else:
                await self._pause_after(failed)

    async def _parts(self, batch: list[Letter]) -> Collection[list[Letter]]:
        """What is written by itself: the letters of one place, or one of a batch that was refused.

        What one place takes is not written there again because another place fails.
        """
        parts: dict[Hashable, list[Letter]] = defaultdict(list)
        for letter, place in zip(batch, await self._places(batch), strict=True):
            parts[letter if letter.alone else place].append(letter)

        return parts.values()

    async def _places(self, batch: list[Letter]) -> Sequence[Hashable]:
        if self._route.places is not None:
            try:
                return await self._circuit.run(self._in_time, self._route.places, [one.letter for one in batch])
            except Exception:  # noqa: S110  # the write meets it as well, and there it is dealt with
                pass

        return [None] * len(batch)

    async def _write(self, part: list[Letter]) -> Exception | None:
        """Writes what is still ours of it. Answers what keeps it from being written for the moment."""
        try:
            written = await self._circuit.run(self._put, part, void=operator.not_)
        except (*MAY_PASS, OSError) as error:
            # Unknown counts as not written: a letter twice is better than none.
            return error
        except Exception as error:
            self._refused(part, error)
        else:
            self._written(written)

        return None

    async def _put(self, part: list[Letter]) -> list[Letter]:
        # Asked here, after the circuit: others may have been waited for, or written, for minutes.
        ours = [letter for letter in part if not letter.is_over]
        if not ours:
            return ours

        try:
            await self._in_time(self._route.put, [letter.letter for letter in ours])
        except NotAllStored as partly:
            for place, error in partly.refused.items():
                self._refused([ours[place]], error)

            return [letter for place, letter in enumerate(ours) if place not in partly.refused]

        return ours

    async def _in_time(self, call: Callable[[Sequence[DeadLetter]], Awaitable[T]], letters: Sequence[DeadLetter]) -> T:
        # Inside of what the breaker sees, so that a route that hangs counts as one that fails.
        with anyio.fail_after(PUT_TIMEOUT):
            return await call(letters)

    def _written(self, batch: list[Letter]) -> None:
        if not batch:
            return

        self._remove(batch)
        session = self._session
        session.counts.dead_lettered += len(batch)
        session.observers("dead_lettered", [letter.letter for letter in batch])
        for run in _runs(batch):
            first, last = run[0], run[-1]
            more = f" to {last.parent.place_at(last.index)} ({len(run)} messages)" if len(run) > 1 else ""
            log(
                logging.ERROR,
                "dead_lettered",
                "%s%s is dead-lettered (attempt %d): %s",
                first.parent.place_at(first.index),
                more,
                first.letter.attempts,
                first.letter.reason,
            )

        for letter in batch:
            self._settle_slot(letter.parent, letter.index)

    def _refused(self, batch: list[Letter], error: Exception) -> None:
        if len(batch) > 1:
            # One bad letter must not take the others down with it.
            for letter in batch:
                letter.alone = True

            return

        self._remove(batch)
        self._on_refused(batch[0], error)

    def _remove(self, batch: list[Letter]) -> None:
        # By identity and not by place: of a refused batch some are written, some wait on, and a partition that was lost
        # while the route was asked has taken others away.
        done = set(map(id, batch))
        self._waiting = [letter for letter in self._waiting if id(letter) not in done]
        self._tell()

    async def _pause_after(self, error: Exception) -> None:
        first, most = PAUSE
        pause = pause_after(self._failures, first=first, most=most)
        self._failures += 1
        if self.failing_since is None:
            self.failing_since = self._session.clock()

        self._tell()
        log(
            logging.WARNING,
            "dead_letters_failed",
            "%d dead letters wait, trying again in %.1f s: %s",
            self.waiting,
            pause,
            text_of(error) or f"no answer within {PUT_TIMEOUT:g} s",
        )
        await anyio.sleep(pause)


def _runs(batch: Sequence[Letter]) -> Iterator[list[Letter]]:
    """What one log line can say: consecutive offsets that never reached a handler, for the same reason.

    One damaged batch of a log is hundreds of messages, and as many equal lines would hide the others.
    """
    run: list[Letter] = []
    for letter in batch:
        if run and not _goes_on(run[-1].letter, letter.letter):
            yield run
            run = []

        run.append(letter)

    if run:
        yield run


def _goes_on(before: DeadLetter, letter: DeadLetter) -> bool:
    if before.attempts or letter.attempts or before.offset is None:
        return False

    return (before.tp, before.offset + 1, before.reason) == (letter.tp, letter.offset, letter.reason)


class TopicDeadLetters:
    """Dead letters as messages of a topic (``letters.py`` says how), for drivers with nothing better.

    A letter goes to the partition with its origin's number, modulo theirs (as in Kafka's KIP-1191), so letters of one
    key stay in order.
    """

    def __init__(self, sink: Sink, topic: str) -> None:
        self._sink = sink
        self._topic = topic

    async def places(self, letters: Sequence[DeadLetter]) -> Sequence[int]:
        """The partition of each letter."""
        partitions = await self._sink.partitions(self._topic)
        return [(letter.tp.partition or 0) % partitions for letter in letters]

    async def put(self, letters: Sequence[DeadLetter]) -> None:
        """Appends the letters; durable on return."""
        by_partition: dict[int, list[int]] = defaultdict(list)
        for number, partition in enumerate(await self.places(letters)):
            by_partition[partition].append(number)

        refused: dict[int, Exception] = {}
        for partition, numbers in by_partition.items():
            messages = [as_message(letters[number]) for number in numbers]
            try:
                await self._sink.append(self._topic, partition, messages, sequence=None)
            except NotAllStored as partly:
                refused |= {numbers[place]: error for place, error in partly.refused.items()}

        if refused:
            raise NotAllStored(refused, slot="dead_letters", operation="put")
