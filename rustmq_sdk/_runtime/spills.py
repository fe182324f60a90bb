"""Checkpoints that the broker has no room for, kept in a state store.

Two copies a partition take turns: the one that the committed checkpoint names stays as it is until a checkpoint that
names the other one is committed. So a crash between the two writes costs nothing. Whatever else goes wrong (the store
is down, somebody else wrote in between, the store was emptied) costs duplicates and nothing else: what is not
remembered runs again.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from rustmq_sdk._core.checkpoint import Remembered
from rustmq_sdk._core.spill import name_of, unspilled
from rustmq_sdk._log import log
from rustmq_sdk._runtime.breaker import MAY_PASS
from rustmq_sdk._runtime.session import Session
from rustmq_sdk.errors import DriverError
from rustmq_sdk.slots import StateStore
from rustmq_sdk.values import TopicPartition

T = TypeVar("T")

ATTEMPTS = 3
"""To write, where somebody else has written since we looked: a member that has lost the partition, at most once."""
CALL_SHARE = 0.4
"""Of ``commit_timeout``, for one call: less than a commit gives all of them, so that the circuit hears of it."""


class Spills:
    """Keeps them, and finds them again.

    Args:
        store: None: nothing spills, and intake slows down where a checkpoint is full.
    """

    def __init__(self, session: Session, store: StateStore | None) -> None:
        self._session = session
        self._store = store
        self._circuit = session.circuit("state.checkpoints") if store is not None else None
        self._committed: dict[TopicPartition, int] = {}
        """The copy that the committed checkpoint names."""

    @property
    def possible(self) -> bool:
        """Whether there is a store."""
        return self._store is not None

    async def keep(self, tp: TopicPartition, spill: bytes) -> bool:
        """Stores it beside the one that is committed; whether that worked."""
        copy = 1 - self._committed.get(tp, 1)
        try:
            return await self._ask(self._put, self._key(tp, copy), spill)
        except (*MAY_PASS, DriverError) as error:
            log(logging.WARNING, "spill_failed", "%s: its checkpoint does not fit, and is cut short: %s", tp, error)
            return False

    def committed(self, tp: TopicPartition) -> None:
        """The checkpoint that names what was kept last is committed."""
        self._committed[tp] = 1 - self._committed.get(tp, 1)

    async def recall(self, tp: TopicPartition, watermark: int, remembered: Remembered) -> Remembered:
        """The whole of a checkpoint of which the broker has as much as fits."""
        nonce = remembered.nonce
        if nonce is None or not self.possible:
            return remembered

        for copy in (0, 1):
            spill = await self._find(tp, copy)
            whole = unspilled(watermark, spill, nonce) if spill is not None else None
            if whole is not None:
                self._committed[tp] = copy
                return whole

        text = "%s: the state store does not have the rest of its checkpoint: what is not remembered runs again"
        log(logging.WARNING, "spill_missing", text, tp.at(watermark))
        return remembered

    async def _find(self, tp: TopicPartition, copy: int) -> bytes | None:
        assert self._store is not None
        try:
            found = await self._ask(self._store.get, self._key(tp, copy))
        except (*MAY_PASS, DriverError) as error:
            log(logging.WARNING, "spill_failed", "%s: its checkpoint cannot be read: %s", tp, error)
            return None

        return found.value if found is not None else None

    async def _put(self, key: str, spill: bytes) -> bool:
        assert self._store is not None
        for _ in range(ATTEMPTS):
            found = await self._store.get(key)
            if found is not None and name_of(found.value) == name_of(spill):
                return True

            if await self._store.put(key, spill, if_version=found.version if found is not None else None) is not None:
                return True

        return False

    async def _ask(self, operation: Callable[..., Awaitable[T]], *args: object) -> T:
        assert self._circuit is not None
        with anyio.fail_after(self._session.config.commit_timeout * CALL_SHARE):
            return await self._circuit.run_or_raise(operation, *args)

    def _key(self, tp: TopicPartition, copy: int) -> str:
        return f"checkpoint/{self._session.config.group}/{tp.topic}/{tp.partition}/{copy}"
