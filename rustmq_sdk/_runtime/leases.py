"""The one further task that queues need: keeps the leases of everything unsettled alive."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeAlias, cast

import anyio

from rustmq_sdk._core.leases import LeaseBook, Leased
from rustmq_sdk._core.ledger import Ledger, Settled
from rustmq_sdk._log import log
from rustmq_sdk._runtime.session import Session
from rustmq_sdk.errors import TransientDriverError
from rustmq_sdk.message import DONE, STALE

RENEWALS = 4
"""Renewals a lease: two may fail, or not be answered, before one is lost."""

Slot: TypeAlias = tuple[Leased, int]


class LeaseKeeper:
    """Extends the leases of buffered, running and just acked messages every quarter of a lease.

    Args:
        on_losing: a lease ran out; its message is, or will be, somebody else's. Called before that is noted.
        on_settled: what that has freed.
    """

    def __init__(
        self,
        session: Session,
        *,
        lease: float,
        on_losing: Callable[[Leased, int], None],
        on_settled: Callable[[Ledger, Settled], None],
    ) -> None:
        self._session = session
        self._pause = lease / RENEWALS
        self._on_losing = on_losing
        self._on_settled = on_settled

    async def run(self) -> None:
        """Renews until cancelled."""
        clock = self._session.clock
        await anyio.sleep(self._pause)
        while True:
            # From turn to turn, and not from the end of a renewal: one that is not answered costs its own turn only.
            next_turn = clock() + self._pause
            try:
                # No circuit: a lease that is not renewed while the settling circuit is open would be lost for nothing.
                with anyio.fail_after(self._pause):
                    await self._renew()
            except (TransientDriverError, TimeoutError) as error:
                log(logging.WARNING, "lease_renewal_failed", "renewing leases failed, trying again: %s", error)

            await anyio.sleep(max(0.0, next_turn - clock()))

    async def _renew(self) -> None:
        books = [cast(LeaseBook, lane.ledger) for lane in self._session.lanes]
        slots = [slot for book in books for slot in (*book.leased(), *book.acked())]
        if not slots:
            return

        lost = await self._session.queue.extend([piece.receipts[index] for piece, index in slots])
        gone = {receipt.id for receipt in lost}
        # By name first, because that is quick; a message that was delivered again has two receipts of one name.
        named = [(piece, index) for piece, index in slots if piece.receipts[index].id in gone]
        self._lose([slot for slot in named if _is_unsettled(slot) and slot[0].receipts[slot[1]] in lost])

    def _lose(self, slots: Sequence[Slot]) -> None:
        for piece, index in slots:
            log(logging.WARNING, "lease_lost", "%s: its lease has run out", piece.place_at(index))
            self._on_losing(piece, index)
            book = piece.ledger
            self._on_settled(book, book.lose(piece, index))

        self._session.buffer.drop_stale({piece.ledger for piece, _ in slots})


def _is_unsettled(slot: Slot) -> bool:
    piece, index = slot
    return piece[index] not in (DONE, STALE)
