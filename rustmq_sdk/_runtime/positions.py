"""Where a consumer is in its partitions, and moving it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import anyio

from rustmq_sdk._core.lane import Lane
from rustmq_sdk._log import log
from rustmq_sdk._moments import DOUBTFUL, milliseconds
from rustmq_sdk._runtime.arguments import check_partitions, check_whole
from rustmq_sdk._runtime.partitions import patiently
from rustmq_sdk._runtime.session import Session
from rustmq_sdk.errors import ConfigurationError, ConsumerClosed, ConsumerStateError, TransientDriverError, Unsupported
from rustmq_sdk.values import TopicPartition

if TYPE_CHECKING:
    from rustmq_sdk._runtime.wiring import Parts


class Positions:
    """Questions to the log, and seeks. ``Consumer`` says what each means."""

    def __init__(self, session: Session, parts: Parts) -> None:
        self._session = session
        self._parts = parts

    async def seek(self, partitions: Collection[TopicPartition], offset: int) -> None:
        """All of them, or none: between the last look at them and their moves nothing suspends."""
        self._require(self._session.capabilities.seek, "seek()")
        check_partitions(partitions)
        check_whole("offset", offset, least=0, fix="Offsets start at 0")
        await self._first_assignment("seek()")
        ends = await self._ask_about(partitions, "end_offsets", self._session.log.end_offsets)
        for tp, end in ends.items():
            if offset > end:
                # Fetching waits there, and what is sent until the log has grown so far is never delivered.
                raise ConfigurationError(
                    f"{tp} ends at offset {end}",
                    field="offset",
                    value=offset,
                    fix=f"Seek to {end} to get what is sent from now on, or lower to get messages again",
                )

        self._move(dict.fromkeys(partitions, offset))

    async def seek_all(self, offset: int) -> None:
        """Of all that is assigned."""
        await self._first_assignment("seek_all()")
        await self.seek(self._assigned(), offset)

    async def seek_all_to_timestamp(self, timestamp: int | datetime) -> None:
        """Of all that is assigned."""
        await self._first_assignment("seek_all_to_timestamp()")
        await self.seek_to_timestamp(self._assigned(), timestamp)

    async def seek_to_timestamp(self, partitions: Collection[TopicPartition], timestamp: int | datetime) -> None:
        self._require(self._session.capabilities.offsets_at, "seek_to_timestamp()")
        check_partitions(partitions)
        moment = milliseconds("timestamp", timestamp)
        check_whole("timestamp", moment, least=0, fix="Give milliseconds since the epoch, or a datetime")
        if moment is timestamp and 0 < moment < DOUBTFUL:
            self._doubt(moment)

        await self._first_assignment("seek_to_timestamp()")
        self._move(await self._ask_about(partitions, "offsets_at", self._session.log.offsets_at, moment))

    def _doubt(self, moment: int) -> None:
        if self._session.moment_doubted:
            return

        self._session.moment_doubted = True
        text = "seek_to_timestamp(): %d is %s, since milliseconds are expected. Did you mean %d? Or give a datetime"
        when = datetime.fromtimestamp(moment / 1000, UTC).strftime("%d %B %Y")
        log(logging.WARNING, "moment_doubted", text, moment, when, moment * 1000)

    async def _first_assignment(self, what: str) -> None:
        """After entering it takes the group a moment to say what is ours; until then that would be nothing."""
        self._session.require_loop(what)
        arrived = self._parts.partitions.arrived
        if arrived.is_set():
            return

        timeout = self._session.config.commit_timeout
        with anyio.move_on_after(0 if self._session.closing else timeout):
            await arrived.wait()

        self._session.check_failure()
        if self._session.closing:
            raise ConsumerClosed(f"{what}: the consumer was closed before a partition was assigned to it")

        if not arrived.is_set():
            raise ConsumerStateError(
                f"{what}: no partition was assigned within commit_timeout={timeout:g} s. "
                "Look at assigned_partitions, and at health() for the reason"
            )

    def _assigned(self) -> Collection[TopicPartition]:
        return [ledger.assignment.tp for ledger in self._parts.partitions.ownership.current()]

    async def _ask_about(
        self, partitions: Collection[TopicPartition], name: str, operation: Callable[..., Awaitable[Any]], *args: object
    ) -> Mapping[TopicPartition, int]:
        self._must_be_ours(partitions)
        return await self._ask(name, operation, list(partitions), *args) if partitions else {}

    def _must_be_ours(self, partitions: Collection[TopicPartition]) -> None:
        for tp in partitions:
            self._parts.partitions.lane_of(tp)

    def _move(self, offsets: Mapping[TopicPartition, int]) -> None:
        self._session.check_failure()
        # Again: any of them may have been lost while the broker was asked.
        self._must_be_ours(offsets)
        for tp in offsets:
            # Or may have been moved too often.
            self._parts.partitions.restarted(tp)

        for tp, offset in offsets.items():
            self._parts.partitions.seek(tp, offset)

    async def position(self, tp: TopicPartition) -> int:
        return self._session.buffer.position(await self._lane(tp, "position()"))

    async def committed_offset(self, tp: TopicPartition) -> int | None:
        self._parts.acknowledger.require_group("committed_offset()")
        await self._lane(tp, "committed_offset()")
        checkpoint = (await self._ask("committed", self._session.log.committed, [tp])).get(tp)
        return checkpoint.offset if checkpoint is not None else None

    async def lag(self) -> Mapping[TopicPartition, int]:
        self._require(self._session.capabilities.kind == "log", "get_lag()")
        self._session.require_loop("get_lag()")
        lanes = {lane.ledger.assignment.tp: lane for lane in self._session.lanes}
        ends = await self._ask("end_offsets", self._session.log.end_offsets, list(lanes))
        return {tp: lanes[tp].log.lag(end) for tp, end in ends.items() if tp in lanes}

    async def _ask(self, name: str, operation: Callable[..., Awaitable[Any]], *args: object) -> Any:
        """A question to the broker, asked again while it fails for reasons that may pass."""
        timeout = self._session.config.commit_timeout
        try:
            with anyio.fail_after(timeout):
                return await patiently(timeout, operation, *args)
        except TimeoutError as error:
            problem = f"no answer within commit_timeout={timeout:g} s"
            raise TransientDriverError(problem, slot="source", operation=name) from error

    async def _lane(self, tp: TopicPartition, what: str) -> Lane:
        self._require(self._session.capabilities.kind == "log", what)
        check_partitions([tp])
        await self._first_assignment(what)
        return self._parts.partitions.lane_of(tp)

    def _require(self, able: bool, what: str) -> None:
        if not able:
            raise Unsupported(f"{what}: this source cannot do that. Its capabilities are {self._session.capabilities}")
