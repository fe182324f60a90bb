"""What the ack-handler writes to a log: one checkpoint a partition, all in one broker call.

A checkpoint counts as written only after the broker said so: a commit that was cancelled, timed out or refused leaves
the ledger as it was, and the next one carries everything.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import cast

import anyio

from rustmq_sdk._core.ledger import Ledger
from rustmq_sdk._core.log_book import LogBook, Snapshot
from rustmq_sdk._runtime.acknowledger import Write
from rustmq_sdk._runtime.breaker import MAY_PASS
from rustmq_sdk._runtime.session import Session
from rustmq_sdk._runtime.spills import Spills
from rustmq_sdk._runtime.unconfirmed import Unconfirmed
from rustmq_sdk.values import Assignment, Checkpoint, CommitOutcome

UNHURRIED, HURRIED = 0.5, 0.1
"""Of ``commit_timeout``, for storing what does not fit: in a commit like any other, and in one before a farewell."""


class LogCommits:
    """Commits checkpoints.

    Args:
        on_fenced: the broker says that a partition is somebody else's.
        on_relief: a partition that was held back because its checkpoint was full, or too much was uncommitted, may go
            on.
        spills: takes what the broker has no room for.
    """

    def __init__(
        self,
        session: Session,
        *,
        on_fenced: Callable[[Assignment], None],
        on_relief: Callable[[], None],
        spills: Spills,
    ) -> None:
        self._session = session
        self._spills = spills
        self._on_fenced = on_fenced
        self._on_relief = on_relief
        self._circuit = session.circuit("source.settle")
        self._pins: dict[LogBook, Snapshot] = {}
        self.unconfirmed = Unconfirmed(session, operation="commit", what="commit of {} partitions")

    @property
    def last_error(self) -> Exception | None:
        return self.unconfirmed.error

    def prepare(self, ledgers: Collection[Ledger]) -> Write:
        """The checkpoints that say something new."""
        return partial(self._write, self._snapshots(cast("Collection[LogBook]", ledgers)))

    def pin(self, ledgers: Collection[LogBook]) -> None:
        """Has the broker know where these begin: whoever is next begins there too.

        It is what there is to write at this moment. Without ``auto_commit`` nothing that is settled later goes with it.
        """
        self._pins = self._unwritten_pins() | self._snapshots(ledgers)

    def pinned(self) -> Write | None:
        """Of what was pinned, what the broker does not know yet."""
        pins = self._unwritten_pins() if self._pins else None
        return partial(self._write, pins) if pins else None

    def _unwritten_pins(self) -> dict[LogBook, Snapshot]:
        # Of the others a commit has said more, or the partition is gone.
        return {ledger: pin for ledger, pin in self._pins.items() if ledger.must_write and not ledger.fenced}

    def _snapshots(self, ledgers: Collection[LogBook]) -> dict[LogBook, Snapshot]:
        room = self._session.capabilities.checkpoint_room
        snapshots: dict[LogBook, Snapshot] = {}
        for ledger in ledgers:
            # Of many partitions most are quiet, and a snapshot costs as much as 20 messages.
            if ledger.fenced or ledger.all_written:
                continue

            if self._session.recount(ledger):
                self._on_relief()

            snapshot = ledger.snapshot(room, spills=self._spills.possible)
            if snapshot is not None:
                snapshots[ledger] = snapshot
                self._press_lane(ledger, snapshot.checkpoint.offset if snapshot.pressed else None)

        return snapshots

    def _press_lane(self, ledger: LogBook, watermark: int | None) -> None:
        lane = self._session.buffer.lanes.get(ledger)
        if lane is not None and lane.pressed_at != watermark:
            lane.pressed_at = watermark
            self._on_relief()

    async def _write(self, prepared: Mapping[LogBook, Snapshot], *, once: bool) -> bool:
        """One broker call; whether everything that is still ours was written."""
        self.unconfirmed.begins()
        snapshots = await self._kept(prepared, once=once)
        if not snapshots:
            self.unconfirmed.confirmed()
            return True

        for ledger, snapshot in snapshots.items():
            ledger.on_broker.sent.append(snapshot.checkpoint)

        call = self._circuit.run_once if once else self._circuit.run_or_raise
        try:
            outcomes = await call(
                self._send, {ledger.assignment: snapshot.checkpoint for ledger, snapshot in snapshots.items()}
            )
        except MAY_PASS as error:
            self.unconfirmed.failed(error, [ledger.assignment.tp for ledger in snapshots])
            return False

        written: dict[LogBook, Snapshot] = {}
        for ledger, snapshot in snapshots.items():
            outcome = outcomes.get(ledger.assignment, CommitOutcome.RETRY)
            if outcome is CommitOutcome.COMMITTED:
                ledger.wrote(snapshot)
                if snapshot.spill:
                    self._spills.committed(ledger.assignment.tp)

                written[ledger] = snapshot
            elif outcome is CommitOutcome.FENCED:
                self._on_fenced(ledger.assignment)

        self._announce(written)
        return self._take_stock([ledger for ledger in snapshots if not (ledger in written or ledger.fenced)])

    def _take_stock(self, left: Collection[LogBook]) -> bool:
        if left:
            self.unconfirmed.put_off([ledger.assignment.tp for ledger in left])
        else:
            self.unconfirmed.confirmed()

        return not left

    async def _kept(self, prepared: Mapping[LogBook, Snapshot], *, once: bool) -> Mapping[LogBook, Snapshot]:
        """Stores what does not fit, first: a checkpoint that names it counts only if it is there.

        A store that hangs must not cost the commit itself: what is not stored in time is cut short, as without a store.
        """
        if not any(snapshot.spill for snapshot in prepared.values()):
            return prepared

        stored: set[LogBook] = set()
        with anyio.move_on_after(self._session.config.commit_timeout * (HURRIED if once else UNHURRIED)):
            for ledger, snapshot in prepared.items():
                if snapshot.spill and await self._spills.keep(ledger.assignment.tp, snapshot.spill):
                    stored.add(ledger)

        kept: dict[LogBook, Snapshot] = {}
        for ledger, snapshot in prepared.items():
            if not snapshot.spill or ledger in stored:
                kept[ledger] = snapshot
                continue

            shorter = None if ledger.fenced else ledger.snapshot(self._session.capabilities.checkpoint_room)
            if shorter is not None:
                kept[ledger] = shorter
                self._press_lane(ledger, shorter.checkpoint.offset if shorter.pressed else None)

        return kept

    async def _send(self, checkpoints: Mapping[Assignment, Checkpoint]) -> Mapping[Assignment, CommitOutcome]:
        # The deadline is inside of what the breaker sees, so that a commit that hangs counts as a failure.
        with anyio.fail_after(self._session.config.commit_timeout):
            return await self._session.log.commit(checkpoints)

    def _announce(self, written: Mapping[LogBook, Snapshot]) -> None:
        if not written:
            return

        session = self._session
        session.counts.commits += 1
        if session.observers.wants("committed"):
            session.observers(
                "committed", {ledger.assignment.tp: snapshot.checkpoint for ledger, snapshot in written.items()}
            )

        self._on_relief()
