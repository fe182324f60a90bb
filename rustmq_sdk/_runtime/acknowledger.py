"""The ack-handler: the one task that carries what is settled to the broker, in batches.

It is told through a bounded channel, at most once a partition between two looks. It decides when a commit is due and
keeps one commit in flight while settling goes on beside it. A checkpoint counts as written only after the broker said
so: a commit that was cancelled, timed out or refused leaves the ledger as it was, and the next one carries everything.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from math import inf
from typing import Any, Protocol, TypeVar

import anyio

from rustmq_sdk._core.commit_due import SHORT_PAUSE, CommitDue
from rustmq_sdk._core.intake import uncommitted
from rustmq_sdk._core.ledger import Ledger
from rustmq_sdk._runtime.channel import Channel
from rustmq_sdk._runtime.session import Session
from rustmq_sdk.errors import CircuitOpen, StalePartition, TransientDriverError, Unsupported
from rustmq_sdk.values import AckResult

Prepared = TypeVar("Prepared")


class Writer(Protocol[Prepared]):
    """Tells the broker what is settled: ``commits.py`` for logs, ``settlements.py`` for queues."""

    @property
    def last_error(self) -> Exception | None:
        """Of the latest write that said why; None since one worked."""
        ...

    def prepare(self, ledgers: Collection[Ledger]) -> Prepared:
        """What to write now."""
        ...

    async def write(self, prepared: Prepared, *, once: bool) -> bool:
        """Writes it; whether the broker has everything. ``once``: now, even with an open circuit."""
        ...


PACE = 20
"""A checkpoint is not encoded again before so many times the time that it took last."""


class Acknowledger:
    """Commits what is settled.

    Args:
        ledgers: the partitions that are ours right now.
        writer: tells the broker.
    """

    def __init__(
        self,
        session: Session,
        *,
        ledgers: Callable[[], Collection[Ledger]],
        writer: Writer[Any],
    ) -> None:
        config = session.config
        self._session = session
        self._ledgers = ledgers
        self._writer = writer
        self._circuit = session.circuit("source.settle")
        # Each ledger is in it at most once (``told``), and Partitions raises the bound with every assignment.
        self.inbox: Channel[Ledger] = Channel(1)
        self._commits_nothing = config.group is None and session.capabilities.kind == "log"
        self._due = CommitDue(config)
        self._since: float | None = None
        self._tick_at: float | None = None
        self._looks_at = inf
        self._paused_until = 0.0
        self._paced_until = 0.0
        self._every = self._tell_at = config.commit_every
        self._interval = config.commit_interval
        # Nothing becomes due by itself.
        self._asked_only = self._commits_nothing or not config.auto_commit
        self._fresh = 0
        self._asked = False
        self._over = False
        self._soon = False
        self._forced: list[anyio.Event] = []
        self._pins: dict[Ledger, Any] = {}
        self._round = anyio.Event()
        self._started = 0
        self._confirmed = 0

    def require_group(self, what: str) -> None:
        """Raises ``Unsupported`` where nothing is ever committed."""
        if self._commits_nothing:
            raise Unsupported(f"{what} needs a group: without one nothing is committed. Give the consumer group=…")

    # Telling

    def tell(self, ledger: Ledger, settled: int) -> None:
        """So many more messages of the ledger are settled, as far as they are counted.

        Wakes the task only where it would look too late by itself: a wake costs as much as 100 messages.
        """
        self._fresh += settled
        if self._asked_only or ledger.told or ledger.fenced:
            return

        full = self._fresh >= self._tell_at
        # With nothing left the commit does not wait for more. A busy consumer gets there at every fetch.
        quiet = not (ledger.in_flight or self._session.buffer.backlog)
        if not (full or quiet or self._since is None):
            return

        now = self._session.clock()
        if self._since is None:
            self._since = now

        if full:
            self._tell_at += self._every

        if full or self._looks_at > now + (SHORT_PAUSE if quiet else self._interval):
            ledger.told = True
            self.inbox.put(ledger)

    def forget(self, ledger: Ledger) -> None:
        """The assignment is over. While a commit hangs many may end, and each would keep its place in the inbox."""
        for told in self.inbox.drain():
            if told is not ledger:
                self.inbox.put(told)

        # Whoever waits for a commit of it waits in vain.
        self.end_round()

    def arm(self) -> None:
        """Something is in flight. Acks of FREE slots tell nobody, so from now on the task looks once an interval."""
        if self._tick_at is None:
            self._tick_at = self._session.clock() + self._interval
            if self._looks_at > self._tick_at:
                self.inbox.kick()

    def tell_later(self) -> None:
        """Something changed that the next commit should carry."""
        if self._since is None:
            self._since = self._session.clock()
            self.inbox.kick()

    def pin(self, ledgers: Collection[Ledger]) -> None:
        """Has the broker know now where these begin: whoever is next begins there too.

        It is what there is to write at this moment. Without ``auto_commit`` nothing that is settled later goes with it.
        """
        if ledgers and not self._commits_nothing:
            self._pins.update(self._writer.prepare(ledgers))
            self.inbox.kick()

    def tell_soon(self) -> None:
        """A message goes back to its queue: its delay begins, and others may have it, when the queue knows."""
        if not self._soon:
            self._soon = True
            self.inbox.kick()

    def press(self) -> None:
        """Intake waits for a commit."""
        if not self._asked and self._session.config.auto_commit:
            self._asked = True
            self.inbox.kick()

    # Waiting

    async def until_written(self, ledger: Ledger, offsets: Collection[int]) -> AckResult:
        """Asks for a commit now and waits until all of ``offsets`` are written, at most ``commit_timeout``."""
        seen = self._started + 1
        with anyio.move_on_after(self._session.config.commit_timeout):
            while not all(map(ledger.is_written, offsets)):
                self._refuse_stale([ledger])
                await self._next_round()
                # Written, and without one: a message below is unsettled, and the checkpoint has no room to say more.
                # Asked again at once, the same commit with the same answer would go round and round.
                if self._confirmed >= seen and not all(map(ledger.is_written, offsets)):
                    await anyio.sleep(max(SHORT_PAUSE, self._paced_until - self._session.clock()))

            if any(map(ledger.is_stale, offsets)):
                raise StalePartition(f"{ledger.assignment.tp}: the lease had run out; the message comes again")

            return AckResult.DURABLE

        return AckResult.PENDING

    async def commit(self) -> None:
        """Commits what is settled now; returns when the broker has it.

        Raises:
            StalePartition: a partition was lost meanwhile.
            CircuitOpen: the broker is being left alone after repeated failures.
            TransientDriverError: no confirmation within ``commit_timeout``.

            Whatever is raised, nothing is lost: the next commit carries it.
        """
        self.require_group("commit()")
        ledgers = list(self._ledgers())
        # Only an attempt that starts after this call has seen everything that was settled before it.
        wanted = self._started + 1
        with anyio.move_on_after(self._session.config.commit_timeout):
            # Not the round alone: one that began after a partition was revoked has not written that partition.
            while self._confirmed < wanted or any(ledger.confirmed < wanted for ledger in ledgers):
                self._session.check_failure()
                self._refuse_stale(ledgers)
                if self._circuit.state == "open" and self._circuit.retry_in > 0:
                    raise CircuitOpen(self._circuit.name, self._circuit.retry_in)

                await self._next_round()
                # The round had nothing against it, and a partition was not in it: it is being revoked, and comes back
                # or is lost in its own time. Asked again at once, round after empty round would go by.
                if self._confirmed >= wanted and any(ledger.confirmed < wanted for ledger in ledgers):
                    await anyio.sleep(SHORT_PAUSE)

            self._refuse_stale(ledgers)
            return

        raise TransientDriverError(
            f"no confirmation within commit_timeout={self._session.config.commit_timeout} s"
            + (f", the last error was: {self._writer.last_error}" if self._writer.last_error else ""),
            slot="source",
            operation="commit",
        ) from self._writer.last_error

    async def commit_now(self, ledgers: Collection[Ledger]) -> None:
        """Tries once, even with an open circuit, for revoke and close; returns when it was tried."""
        if self._commits_nothing or self._over or not ledgers:
            return

        if not (self._session.config.auto_commit or self._pinned()):
            return

        done = anyio.Event()
        self._forced.append(done)
        self.inbox.kick()
        await done.wait()

    async def _next_round(self) -> None:
        self._asked = True
        self.inbox.kick()
        await self._round.wait()

    def _refuse_stale(self, ledgers: Collection[Ledger]) -> None:
        for ledger in ledgers:
            if ledger.fenced:
                raise StalePartition(
                    f"{ledger.assignment.tp} was lost before the broker had its position; "
                    "its new owner handles what was not committed again"
                )

    # The task

    async def run(self) -> None:
        """Commits when it is due, until cancelled."""
        try:
            await self._run()
        finally:
            # Who closes must not wait for somebody who is not there any more.
            self._over = True
            for done in self._forced:
                done.set()

    async def _run(self) -> None:
        busy = False
        while True:
            due = self._due_in()
            if busy:
                # Looked at soon by itself, whatever goes quiet or begins until then: nobody has to tell.
                due = SHORT_PAUSE if due is None else min(due, SHORT_PAUSE)

            self._looks_at = inf if due is None else self._session.clock() + due
            await self.inbox.wait(due)
            busy = self._look()
            if self._forced:
                forced, self._forced = self._forced, []
                # What is ours now: a revoke may have run out of time while another commit hung; then its partitions are
                # given up, and a commit would be one for somebody else's. And all of it, not only what is revoked:
                # whoever waits in commit() would take a part for the whole.
                await self._write(once=True)
                for done in forced:
                    done.set()
            elif self._due_in() == 0:
                busy = True
                await self._write(once=False)

    def _look(self) -> bool:
        """Whether somebody has told something."""
        told = self.inbox.drain()
        for ledger in told:
            ledger.told = False

        return bool(told)

    def _due_in(self) -> float | None:
        """Seconds until the next commit; 0 is now, None is not before somebody tells."""
        if self._commits_nothing:
            self._since = None
            return None

        now = self._session.clock()
        due = self._due_by_itself(now)
        if self._asked or self._pinned():
            return max(0.0, self._paused_until - now)

        if due is None or not self._session.config.auto_commit:
            return None

        return max(due, self._paused_until - now, self._paced_until - now)

    def _due_by_itself(self, now: float) -> float | None:
        lanes = self._session.lanes
        in_flight = any(lane.ledger.in_flight for lane in lanes)
        due = self._due.due_in(
            now=now,
            uncommitted=max(uncommitted(lanes), self._since is not None),
            since=self._since,
            idle=not in_flight,
            pressed=self._soon or any(lane.pressed for lane in lanes if lane.pressed_at is not None),
        )
        if in_flight and self._tick_at is not None:
            tick = max(0.0, self._tick_at - now)
            due = tick if due is None else min(due, tick)

        return due

    def _pinned(self) -> bool:
        if self._pins:
            # A commit has said more, or the partition is gone.
            self._pins = {ledger: pin for ledger, pin in self._pins.items() if ledger.must_write and not ledger.fenced}

        return bool(self._pins)

    async def _write(self, *, once: bool) -> None:
        if self._session.config.auto_commit or self._asked:
            self._asked = False
            await self._commit(list(self._ledgers()), once=once)
        elif self._pinned() and not await self._writer.write(self._pins, once=once):
            self._pause()

    async def _commit(self, ledgers: Collection[Ledger], *, once: bool) -> None:
        self._started += 1
        number = self._started
        self._since = None
        soon, self._soon = self._soon, False
        self._fresh = 0
        self._tell_at = self._every
        started = self._session.clock()
        prepared = self._writer.prepare(ledgers)
        now = self._session.clock()
        # With 100,000 in flight in random order a checkpoint takes 0.03 s to write down: that must not happen every
        # 5,000 messages. It may take a twentieth of the time, as far as the interval allows, which is promised; and a
        # process that was stopped here for a while has measured that.
        self._paced_until = now + min(PACE * (now - started), self._interval)
        in_flight = any(lane.ledger.in_flight for lane in self._session.lanes)
        self._tick_at = now + self._interval if in_flight else None
        if await self._writer.write(prepared, once=once):
            self._confirmed = number
            for ledger in ledgers:
                ledger.confirmed = number

            self._due.succeeded(self._fresh)
        else:
            self._since = self._session.clock()
            self._soon |= soon
            self._pause()

        self.end_round()

    def _pause(self) -> None:
        # While the circuit is open an attempt would only be refused, and reported, again and again.
        wait = self._circuit.retry_in if self._circuit.state == "open" else 0.0
        self._paused_until = self._session.clock() + max(self._due.failed(), wait)

    def end_round(self) -> None:
        """Has everybody who waits for a commit look again."""
        finished, self._round = self._round, anyio.Event()
        finished.set()
