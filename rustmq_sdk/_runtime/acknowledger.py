"""The ack-handler: the one task that carries what is settled to the broker, in batches.

It is told through a bounded channel, at most once a partition between two looks. It decides when a commit is due and
keeps one commit in flight while settling goes on beside it. A checkpoint counts as written only after the broker said
so: a commit that was cancelled, timed out or refused leaves the ledger as it was, and the next one carries everything.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol

import anyio

from rustmq_sdk._core.commit_due import SHORT_PAUSE, CommitDue, Levels
from rustmq_sdk._core.intake import uncommitted
from rustmq_sdk._core.ledger import Ledger
from rustmq_sdk._runtime.channel import Channel
from rustmq_sdk._runtime.session import Session
from rustmq_sdk.errors import CircuitOpen, StalePartition, TransientDriverError, Unsupported
from rustmq_sdk.values import AckResult


class Write(Protocol):
    """Tells the broker what was prepared; answers whether it has everything."""

    async def __call__(self, *, once: bool) -> bool:
        """``once``: now, even with an open circuit."""
        ...


class Writer(Protocol):
    """Knows how to tell the broker: ``commits.py`` for logs, ``settlements.py`` for queues."""

    @property
    def last_error(self) -> Exception | None:
        """Of the latest write that said why; None since one worked."""
        ...

    def prepare(self, ledgers: Collection[Ledger]) -> Write:
        """What is settled at this moment."""
        ...

    def pinned(self) -> Write | None:
        """What the broker has to know even if nobody commits; None for nothing."""
        ...


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
        writer: Writer,
    ) -> None:
        config = session.config
        self._session = session
        self._ledgers = ledgers
        self._writer = writer
        self._circuit = session.circuit("source.settle")
        # Each ledger is in it at most once (``told``), and Partitions raises the bound with every assignment.
        self.inbox: Channel[Ledger] = Channel(1)
        self._commits_nothing = config.group is None and session.capabilities.kind == "log"
        self._due = CommitDue(config, by_itself=config.auto_commit and not self._commits_nothing)
        self._asked = False
        self._over = False
        self._soon = False
        self._forced: list[anyio.Event] = []
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
        # With nothing left the commit does not wait for more.
        quiet = not (ledger.in_flight or self._session.buffer.backlog)
        if not self._due.settled(settled, quiet=quiet) or ledger.told or ledger.fenced:
            return

        if self._due.notice(self._session.clock(), quiet=quiet):
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
        if not self._due.looks and self._due.look_regularly(self._session.clock()):
            self.inbox.ring()

    def tell_later(self) -> None:
        """Something changed that the next commit should carry."""
        if self._due.changed(self._session.clock()):
            self.inbox.ring()

    def wake(self) -> None:
        """Something has to be written although nobody asks for a commit."""
        self.inbox.ring()

    def tell_soon(self) -> None:
        """A message goes back to its queue: its delay begins, and others may have it, when the queue knows."""
        if not self._soon:
            self._soon = True
            self.inbox.ring()

    def press(self) -> None:
        """Intake waits for a commit."""
        if not self._asked and self._session.config.auto_commit:
            self._asked = True
            self.inbox.ring()

    # Waiting

    async def until_written(self, ledger: Ledger, offsets: Collection[int]) -> AckResult:
        """Asks for a commit now and waits until all of ``offsets`` are written, at most ``commit_timeout``."""
        seen = self._started + 1
        with anyio.move_on_after(self._session.config.commit_timeout):
            # Asked first: what was written before the partition was lost is written.
            while not all(map(ledger.is_written, offsets)):
                self._refuse_stale([ledger])
                await self._next_round()
                # Written, and without one: a message below is unsettled, and the checkpoint has no room to say more.
                # Asked again at once, the same commit with the same answer would go round and round.
                if self._confirmed >= seen and not all(map(ledger.is_written, offsets)):
                    await anyio.sleep(max(SHORT_PAUSE, self._due.paced_for(self._session.clock())))

            if any(map(ledger.was_too_late, offsets)):
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

        if not self._session.config.auto_commit and self._writer.pinned() is None:
            return

        done = anyio.Event()
        self._forced.append(done)
        self.inbox.ring()
        await done.wait()

    async def _next_round(self) -> None:
        self._asked = True
        self.inbox.ring()
        await self._round.wait()

    def _refuse_stale(self, ledgers: Collection[Ledger]) -> None:
        for ledger in ledgers:
            if ledger.fenced:
                closed = ledger.assignment in self._session.held_at_close
                why = "the consumer was closed" if closed else "the partition was lost, or moved by a seek,"
                raise StalePartition(
                    f"{ledger.assignment.tp}: {why} before the broker had its position; what it does not have is, or "
                    "will be, delivered again"
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
            await self.inbox.wait(self._due.wait(self._session.clock(), self._due_in(), busy=busy))
            busy = self._take_told()
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

    def _take_told(self) -> bool:
        """Whether somebody has told something."""
        told = self.inbox.drain()
        for ledger in told:
            ledger.told = False

        return bool(told)

    def _due_in(self) -> float | None:
        """Seconds until something is to be written; 0 is now, None is not before somebody tells."""
        if self._commits_nothing:
            return None

        lanes = self._session.lanes
        levels = Levels(
            uncommitted(lanes),
            in_flight=self._in_flight(),
            pressed=self._soon or any(lane.pressed for lane in lanes if lane.pressed_at is not None),
        )
        wanted = self._asked or self._writer.pinned() is not None
        return self._due.due_in(self._session.clock(), levels, wanted=wanted)

    def _in_flight(self) -> bool:
        return any(lane.ledger.in_flight for lane in self._session.lanes)

    async def _write(self, *, once: bool) -> None:
        if self._session.config.auto_commit or self._asked:
            self._asked = False
            await self._commit(list(self._ledgers()), once=once)
            return

        write = self._writer.pinned()
        if write is not None and not await write(once=once):
            self._pause()

    async def _commit(self, ledgers: Collection[Ledger], *, once: bool) -> None:
        self._started += 1
        number = self._started
        soon, self._soon = self._soon, False
        clock = self._session.clock
        started = clock()
        write = self._writer.prepare(ledgers)
        now = clock()
        self._due.begins(now, took=now - started, in_flight=self._in_flight())
        if await write(once=once):
            self._confirmed = number
            for ledger in ledgers:
                ledger.confirmed = number

            self._due.succeeded(clock(), uncommitted(self._session.lanes))
        else:
            self._soon |= soon
            self._pause()

        self.end_round()

    def _pause(self) -> None:
        # While the circuit is open an attempt would only be refused, and reported, again and again.
        wait = self._circuit.retry_in if self._circuit.state == "open" else 0.0
        self._due.failed(self._session.clock(), at_least=wait)

    def end_round(self) -> None:
        """Has everybody who waits for a commit look again."""
        finished, self._round = self._round, anyio.Event()
        finished.set()
