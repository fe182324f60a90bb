"""What the ack-handler writes to a queue: one settlement a message, many in one broker call."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from functools import partial
from itertools import chain
from typing import cast

import anyio

from rustmq_sdk._core.leases import Due, LeaseBook
from rustmq_sdk._core.ledger import Ledger, Settled
from rustmq_sdk._log import log
from rustmq_sdk._runtime.acknowledger import Write
from rustmq_sdk._runtime.breaker import MAY_PASS
from rustmq_sdk._runtime.session import Session
from rustmq_sdk._runtime.unconfirmed import Unconfirmed
from rustmq_sdk.slots import Ack, Nack, SettleOutcome, Term

BATCH = 1000
"""Settlements in one broker call."""


class QueueSettlements:
    """Settles messages one by one, in batches.

    Args:
        on_settled: what the broker's answers have freed.
        on_relief: too much was unconfirmed, and is not any more.
    """

    def __init__(
        self, session: Session, *, on_settled: Callable[[Ledger, Settled], None], on_relief: Callable[[], None]
    ) -> None:
        self._session = session
        self._on_settled = on_settled
        self._on_relief = on_relief
        self._circuit = session.circuit("source.settle")
        self.unconfirmed = Unconfirmed(session, operation="settle", what="settling {} messages")

    @property
    def last_error(self) -> Exception | None:
        return self.unconfirmed.error

    def prepare(self, ledgers: Collection[Ledger]) -> Write:
        """Everything the broker has not been told, or did not confirm."""
        for ledger in ledgers:
            self._session.recount(ledger)

        due = chain.from_iterable(cast(LeaseBook, ledger).due() for ledger in ledgers if not ledger.fenced)
        return partial(self._write, list(due))

    def pinned(self) -> None:
        """A queue has no position that could be told."""

    async def _write(self, prepared: list[Due], *, once: bool) -> bool:
        """Tells the broker; whether it has everything."""
        self.unconfirmed.begins()
        left: list[Due] = []
        for start in range(0, len(prepared), BATCH):
            batch = prepared[start : start + BATCH]
            call = self._circuit.run_once if once else self._circuit.run_or_raise
            try:
                outcomes = await call(self._send, batch)
            except MAY_PASS as error:
                self.unconfirmed.failed(error, [due.piece.assignment.tp for due in batch])
                return False

            left += self._take_in(batch, outcomes)

        if left:
            self.unconfirmed.put_off([due.piece.assignment.tp for due in left])
        else:
            self.unconfirmed.confirmed()

        return not left

    async def _send(self, batch: list[Due]) -> list[SettleOutcome]:
        # The deadline is inside of what the breaker sees, so that a settlement that hangs counts as a failure.
        with anyio.fail_after(self._session.config.commit_timeout):
            return list(await self._session.queue.settle([_settlement(due) for due in batch]))

    def _take_in(self, batch: list[Due], outcomes: list[SettleOutcome]) -> list[Due]:
        """What the broker has put off."""
        session = self._session
        session.counts.commits += 1
        left: list[Due] = []
        for due, outcome in zip(batch, outcomes, strict=True):
            if outcome is SettleOutcome.RETRY:
                left.append(due)
                continue

            book = due.piece.ledger
            lost = outcome is SettleOutcome.LOST
            if lost and due.verb is None:
                text = "%s: its lease had run out before its ack arrived; it comes again"
                log(logging.WARNING, "lease_lost", text, due.piece.place_at(due.slot))

            self._on_settled(book, book.report(due, lost=lost))

        self._on_relief()
        return left


def _settlement(due: Due) -> Ack | Nack | Term:
    receipt = due.piece.receipts[due.slot]
    if due.verb is None:
        return Ack(receipt)

    return Term(receipt) if due.verb.dead else Nack(receipt, due.verb.delay, due.verb.counted)
