"""The one further task that queues need: keeps the leases of everything unsettled alive."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import cast

import anyio

from rustmq_sdk._core.leases import LeaseBook
from rustmq_sdk._core.ledger import Ledger, Settled
from rustmq_sdk._runtime.session import Session, log
from rustmq_sdk.errors import TransientDriverError
from rustmq_sdk.message import DONE, STALE
from rustmq_sdk.slots import QueueSubscription

RENEWALS = 3
"""Renewals a lease: two may fail before one is lost."""


class LeaseKeeper:
    """Extends the leases of buffered, running and just acked messages every third of a lease.

    Args:
        on_lost: a lease ran out; its message is, or will be, somebody else's.
    """

    def __init__(self, session: Session, *, lease: float, on_lost: Callable[[Ledger, Settled], None]) -> None:
        self._session = session
        self._pause = lease / RENEWALS
        self._on_lost = on_lost

    async def run(self) -> None:
        """Renews until cancelled."""
        while True:
            await anyio.sleep(self._pause)
            try:
                # No circuit: a lease that is not renewed while the settling circuit is open would be lost for nothing.
                with anyio.fail_after(self._pause):
                    await self._renew()
            except (TransientDriverError, TimeoutError) as error:
                log(logging.WARNING, "lease_renewal_failed", "renewing leases failed, trying again: %s", error)

    async def _renew(self) -> None:
        subscription = cast(QueueSubscription, self._session.subscription)
        books = [cast(LeaseBook, lane.ledger) for lane in self._session.lanes]
        slots = [(book, piece, index) for book in books for piece, index in (*book.leased(), *book.acked())]
        if not slots:
            return

        lost = await subscription.extend([piece.receipts[index] for _, piece, index in slots])
        gone = {receipt.id for receipt in lost}
        for book, piece, index in slots:
            receipt = piece.receipts[index]
            # By name first, because that is quick; a message that was delivered again has two receipts of one name.
            if receipt.id in gone and receipt in lost and piece[index] not in _SETTLED:
                log(logging.WARNING, "lease_lost", "%s: the lease of %s has run out", book.assignment.tp, receipt.id)
                self._on_lost(book, book.lose(piece, index))


_SETTLED = (DONE, STALE)
