"""Pieces of a ledger, settled and written as the runtime does it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from rustmq_sdk._core.log_book import LogBook, Snapshot
from rustmq_sdk._core.piece import Piece
from rustmq_sdk.message import DONE, FREE, WATCH, Settler
from rustmq_sdk.values import TopicPartition

NOBODY = cast(Settler, None)
"""The owner of these messages: the tests settle them through the ledger, as the runtime's settler does."""

TP = TopicPartition("t", 0)


def piece_of(ledger: LogBook, offsets: Sequence[int], next_offset: int | None = None) -> Piece:
    end = offsets[-1] + 1 if next_offset is None else next_offset
    piece, _ = ledger.admit(offsets, end, size=10 * len(offsets), largest=10, owner=NOBODY)
    assert piece is not None
    return piece


def ack(piece: Piece, index: int) -> bool:
    """What ``Message.ack`` and, for everything but a FREE slot, the settler do; whether it settled the message."""
    before = piece[index]
    if before not in (FREE, WATCH):
        return False

    piece[index] = DONE
    if before == WATCH:
        piece.ledger.note(piece, index)

    return True


def write(ledger: LogBook, room: int | None = None) -> Snapshot | None:
    snapshot = ledger.snapshot(room)
    if snapshot is not None:
        ledger.wrote(snapshot)

    return snapshot
