"""The parts of one running consumer, and how they know each other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence

import anyio

from rustmq_sdk._core.leases import LeaseBook, Return
from rustmq_sdk._core.ledger import Ledger, Settled
from rustmq_sdk._core.log_book import LogBook
from rustmq_sdk._core.piece import Piece
from rustmq_sdk._runtime.acknowledger import Acknowledger
from rustmq_sdk._runtime.commits import LogCommits
from rustmq_sdk._runtime.dead_letters import DeadLetterWriter, Route
from rustmq_sdk._runtime.delivery import Delivery
from rustmq_sdk._runtime.failures import Failures
from rustmq_sdk._runtime.fetcher import Fetcher
from rustmq_sdk._runtime.holes import Holes
from rustmq_sdk._runtime.leases import LeaseKeeper
from rustmq_sdk._runtime.partitions import Partitions
from rustmq_sdk._runtime.redelivery import Redelivery
from rustmq_sdk._runtime.session import Session
from rustmq_sdk._runtime.settlements import QueueSettlements
from rustmq_sdk._runtime.settler import LedgerSettler
from rustmq_sdk._runtime.shutdown import IN_FLIGHT
from rustmq_sdk._runtime.watch import Watch
from rustmq_sdk._runtime.workers import Workers

LAND = 0.05
"""Of ``close_timeout`` that the last fetch may take to return."""


class Parts:
    """Everything that runs between a subscription and the user.

    Args:
        session: state common to all parts.
        route: of dead letters; None where there is none.
        explain: what is waited for, in one line.
    """

    def __init__(self, session: Session, route: Route | None, *, explain: Callable[[], str]) -> None:
        self.session = session
        self.partitions = partitions = Partitions(session)
        self.failures = failures = Failures(session)
        self.holes = Holes(session, failures)
        self.writer = self._writer()
        self.acknowledger = Acknowledger(session, ledgers=partitions.ownership.current, writer=self.writer)
        self.settler = LedgerSettler(
            session,
            acknowledger=self.acknowledger,
            failures=failures,
            on_room=self._room,
            on_key_freed=self._key_freed,
        )
        self.letters = self._letters(route)
        self.watch = Watch(session, take_back=self._take_back)
        self.redelivery = Redelivery(
            session,
            on_gone=self.holes.gone_retry,
            on_broken=self.holes.broken_retry,
            on_exhausted=failures.exhausted,
            on_evicted=failures.evicted,
            inspect=self._inspect,
        )
        self.fetcher = Fetcher(
            session,
            settler=self.settler,
            find_lane=partitions.lane,
            on_broken=self.holes.broken,
            on_gone=self.holes.gone,
            on_spent=failures.spent,
            on_taken_in=self._taken_in,
            press_commit=self.acknowledger.press,
            look_around=partitions.rebalance.look,
        )
        self.delivery = Delivery(session, low=self.fetcher.low, explain=explain)
        self.workers: Workers | None = None
        self.leave = anyio.Event()
        self.left = anyio.Event()
        self._introduce()

    def _introduce(self) -> None:
        """Parts that call each other cannot all be made with the others at hand."""
        self.failures.connect(
            redelivery=self.redelivery,
            letters=self.letters,
            settler=self.settler,
            settle_slot=self.settler.settle_slot,
            tell_soon=self.acknowledger.tell_soon,
            start_over=self.partitions.seek,
        )
        self.holes.connect(letters=self.letters, settler=self.settler)
        self.partitions.connect(
            acknowledger=self.acknowledger,
            settler=self.settler,
            redelivery=self.redelivery,
            failures=self.failures,
            kick_fetcher=self.fetcher.kick,
            pin=self._pin,
        )

    def _letters(self, route: Route | None) -> DeadLetterWriter | None:
        if route is None:
            return None

        return DeadLetterWriter(
            self.session, route, settle_slot=self.settler.settle_slot, on_refused=self.failures.undeliverable
        )

    def tasks(self) -> Sequence[tuple[str, Callable[[], Awaitable[None]]]]:
        """The fixed set of tasks beside the subscription's: names and coroutine functions."""
        tasks: list[tuple[str, Callable[[], Awaitable[None]]]] = [
            ("fetcher", self.fetcher.run),
            ("ack-handler", self.acknowledger.run),
            ("redelivery", self.redelivery.run),
        ]
        if self.session.capabilities.kind == "queue":
            lease = self.session.capabilities.lease or self.session.config.lease
            keeper = LeaseKeeper(
                self.session, lease=lease, on_losing=self.failures.lease_lost, on_settled=self._account
            )
            tasks.append(("leases", keeper.run))

        if self.letters is not None:
            tasks.append(("dead letters", self.letters.run))

        return tasks

    def _writer(self) -> LogCommits | QueueSettlements:
        if self.session.capabilities.kind == "log":
            return LogCommits(
                self.session, on_fenced=self.partitions.fenced, on_relief=self._room, spills=self.partitions.spills
            )

        return QueueSettlements(self.session, on_settled=self._account, on_relief=self._room)

    def _pin(self, ledgers: Collection[LogBook]) -> None:
        if isinstance(self.writer, LogCommits) and self.session.config.group is not None:
            self.writer.pin(ledgers)
            self.acknowledger.wake()

    def _account(self, ledger: Ledger, settled: Settled) -> None:
        self.settler.account(ledger, settled)

    async def finish_settling(self) -> None:
        """The last commit of what is settled; on queues what is not goes back, without counting an attempt."""
        if self.session.capabilities.kind == "queue":
            # A fetch that is still out would take back, and keep for a lease, what is given back here.
            with anyio.move_on_after(self.session.config.close_timeout * LAND):
                await self.fetcher.land()

        for ledger in self.partitions.ownership.current():
            if isinstance(ledger, LeaseBook):
                for piece, index in list(ledger.leased()):
                    ledger.take(piece, index)
                    ledger.give_back(piece, index, Return(counted=False))

        await self.acknowledger.commit_now(self.partitions.ownership.current())

    # The callbacks that cross from one part to another. They look the other part up when they are called, because some
    # of them are needed before it exists.

    def _inspect(self, now: float) -> float | None:
        if self.session.stopping and self.workers is not None:
            # As long as close() would give them: whoever sent the signal waits no longer than close_timeout.
            self.workers.end_by(now + self.session.config.close_timeout * IN_FLIGHT)

        return self.watch(now)

    def _room(self) -> None:
        self.fetcher.room()

    def _taken_in(self) -> None:
        self.redelivery.arm()
        self.acknowledger.arm()

    def _key_freed(self) -> None:
        self.session.wake_receiver()

    def _take_back(self, piece: Piece, index: int) -> None:
        self.failures.timed_out(piece, index)
