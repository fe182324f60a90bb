"""The ack-handler: the one task that carries what is settled to the broker, in batches.

It is told through a bounded channel, at most once a partition between two looks. It decides when a commit is due and
keeps one commit in flight while settling goes on beside it. A checkpoint counts as written only after the broker said
so: a commit that was cancelled, timed out or refused leaves the ledger as it was, and the next one carries everything.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping

import anyio

from rustmq_sdk._core.commit_due import CommitDue
from rustmq_sdk._core.ledger import Ledger, Snapshot
from rustmq_sdk._runtime.channel import Channel
from rustmq_sdk._runtime.session import Session, log
from rustmq_sdk.errors import CircuitOpen, OutcomeUnknown, StalePartition, TransientDriverError, Unsupported
from rustmq_sdk.values import AckResult, Assignment, Checkpoint, CommitOutcome


class Acknowledger:
    """Commits what is settled.

    Args:
        ledgers: the partitions that are ours right now.
        on_fenced: the broker says that a partition is somebody else's.
        on_relief: a partition that was held back because its checkpoint was full, or too much was uncommitted, may go
            on.
    """

    def __init__(
        self,
        session: Session,
        *,
        ledgers: Callable[[], Collection[Ledger]],
        on_fenced: Callable[[Assignment], None],
        on_relief: Callable[[], None],
    ) -> None:
        config = session.config
        self._session = session
        self._ledgers = ledgers
        self._on_fenced = on_fenced
        self._on_relief = on_relief
        self._circuit = session.circuit("source.settle")
        # Each ledger is in it at most once (``told``), and Partitions raises the bound with every assignment.
        self.inbox: Channel[Ledger] = Channel(1)
        self._due = CommitDue(config)
        self._since: float | None = None
        self._tick_at: float | None = None
        self._paused_until = 0.0
        self._asked = False
        self._forced: list[tuple[set[Ledger], anyio.Event]] = []
        self._round = anyio.Event()
        self._started = 0
        self._confirmed = 0
        self.last_error: Exception | None = None
        """Of the latest commit; None when it worked."""

    def require_group(self, what: str) -> None:
        """Raises ``Unsupported`` where nothing is ever committed."""
        if self._session.config.group is None:
            raise Unsupported(f"{what} needs a group: without one nothing is committed. Give the consumer group=…")

    # Telling

    def tell(self, ledger: Ledger, completed: bool) -> None:
        """Something of the ledger is settled; ``completed``: a whole piece of it."""
        # Without the first the interval would never start to run, without the second a full batch would wait for it.
        if (completed or self._since is None) and not ledger.told and not ledger.fenced:
            ledger.told = True
            self.inbox.put(ledger)

    def tell_later(self) -> None:
        """Something changed that the next commit should carry."""
        if self._since is None:
            self._since = self._session.clock()
            self.inbox.kick()

    def press(self) -> None:
        """Intake waits for a commit."""
        if not self._asked and self._session.config.auto_commit:
            self._asked = True
            self.inbox.kick()

    # Waiting

    async def until_written(self, ledger: Ledger, offset: int) -> AckResult:
        """Asks for a commit now and waits until one covers ``offset``, at most ``commit_timeout``."""
        with anyio.move_on_after(self._session.config.commit_timeout):
            while not ledger.is_written(offset):
                self._refuse_stale([ledger])
                await self._next_round()

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
            while self._confirmed < wanted:
                self._session.check_failure()
                self._refuse_stale(ledgers)
                if self._circuit.state == "open":
                    raise CircuitOpen(self._circuit.name, self._circuit.retry_in)

                await self._next_round()

            self._refuse_stale(ledgers)
            return

        raise TransientDriverError(
            f"no confirmation within commit_timeout={self._session.config.commit_timeout} s"
            + (f", the last error was: {self.last_error}" if self.last_error else ""),
            slot="source",
            operation="commit",
        ) from self.last_error

    async def commit_now(self, ledgers: Collection[Ledger]) -> None:
        """Tries once, even with an open circuit, for revoke and close; returns when it was tried."""
        if self._session.config.group is None or not self._session.config.auto_commit or not ledgers:
            return

        done = anyio.Event()
        self._forced.append((set(ledgers), done))
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
        while True:
            await self.inbox.wait(self._due_in())
            self._look()
            if self._forced:
                forced, self._forced = self._forced, []
                await self._commit({ledger for ledgers, _ in forced for ledger in ledgers}, once=True)
                for _, done in forced:
                    done.set()
            elif self._due_in() == 0:
                self._asked = False
                await self._commit(list(self._ledgers()), once=False)

    def _look(self) -> None:
        for ledger in self.inbox.drain():
            ledger.told = False
            if self._since is None:
                self._since = self._session.clock()

    def _due_in(self) -> float | None:
        """Seconds until the next commit; 0 is now, None is not before somebody tells."""
        session, now = self._session, self._session.clock()
        if session.config.group is None:
            self._since = None
            return None

        if now < self._paused_until:
            return self._paused_until - now

        if self._asked:
            return 0

        if not session.config.auto_commit:
            return None

        lanes = session.lanes
        in_flight = sum(lane.ledger.in_flight for lane in lanes)
        due = self._due.due_in(
            now=now,
            uncommitted=max(sum(lane.ledger.uncommitted for lane in lanes), self._since is not None),
            since=self._since,
            idle=not in_flight,
            pressed=any(lane.pressed for lane in lanes),
        )
        if in_flight and self._tick_at is not None:
            # Acks of FREE slots tell nobody: while something is in flight, look once an interval.
            tick = max(0.0, self._tick_at - now)
            due = tick if due is None else min(due, tick)

        return due

    async def _commit(self, ledgers: Collection[Ledger], *, once: bool) -> None:
        self._started += 1
        number = self._started
        self._since = None
        self._tick_at = self._session.clock() + self._session.config.commit_interval
        snapshots = self._snapshots(ledgers)
        if not snapshots or await self._write(snapshots, once=once):
            self._confirmed = number
            self._due.succeeded()
        else:
            self._since = self._session.clock()
            self._paused_until = self._session.clock() + self._due.failed()

        finished, self._round = self._round, anyio.Event()
        finished.set()

    def _snapshots(self, ledgers: Collection[Ledger]) -> dict[Ledger, Snapshot]:
        room = self._session.capabilities.checkpoint_room
        snapshots: dict[Ledger, Snapshot] = {}
        for ledger in ledgers:
            if ledger.fenced:
                continue

            snapshot = ledger.snapshot(room)
            if snapshot is not None:
                snapshots[ledger] = snapshot
                self._press_lane(ledger, snapshot.pressed)

        return snapshots

    def _press_lane(self, ledger: Ledger, pressed: bool) -> None:
        lane = self._session.buffer.lanes.get(ledger)
        if lane is not None and lane.pressed != pressed:
            lane.pressed = pressed
            self._on_relief()

    async def _write(self, snapshots: Mapping[Ledger, Snapshot], *, once: bool) -> bool:
        """One broker call; whether everything that is still ours was written."""
        call = self._circuit.run_once if once else self._circuit.run_or_raise
        try:
            outcomes = await call(
                self._send, {ledger.assignment: snapshot.checkpoint for ledger, snapshot in snapshots.items()}
            )
        except (TransientDriverError, TimeoutError, OutcomeUnknown, CircuitOpen) as error:
            self._report(snapshots, error)
            return False

        self.last_error = None
        written: dict[Ledger, Snapshot] = {}
        for ledger, snapshot in snapshots.items():
            outcome = outcomes.get(ledger.assignment, CommitOutcome.RETRY)
            if outcome is CommitOutcome.COMMITTED:
                ledger.wrote(snapshot)
                written[ledger] = snapshot
            elif outcome is CommitOutcome.FENCED:
                self._on_fenced(ledger.assignment)

        self._announce(written)
        return all(ledger in written or ledger.fenced for ledger in snapshots)

    async def _send(self, checkpoints: Mapping[Assignment, Checkpoint]) -> Mapping[Assignment, CommitOutcome]:
        # The deadline is inside of what the breaker sees, so that a commit that hangs counts as a failure.
        with anyio.fail_after(self._session.config.commit_timeout):
            subscription = self._session.subscription
            return await subscription.commit(checkpoints)  # type: ignore[union-attr]

    def _announce(self, written: Mapping[Ledger, Snapshot]) -> None:
        if not written:
            return

        session = self._session
        session.counts.commits += 1
        if session.observers.wants("committed"):
            session.observers(
                "committed", {ledger.assignment.tp: snapshot.checkpoint for ledger, snapshot in written.items()}
            )

        self._on_relief()

    def _report(self, snapshots: Mapping[Ledger, Snapshot], error: Exception) -> None:
        if isinstance(error, TimeoutError):
            error = TransientDriverError(
                f"no answer within {self._session.config.commit_timeout} s", slot="source", operation="commit"
            )

        self.last_error = error
        partitions = [ledger.assignment.tp for ledger in snapshots]
        log(logging.WARNING, "commit_failed", "commit of %d partitions failed: %s", len(partitions), error)
        self._session.observers("commit_failed", partitions, str(error))
