"""A live subscription to topics of the log."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence

from anyio.lowlevel import checkpoint

from rustmq_sdk._log import log
from rustmq_sdk.drivers.sqlite import claims, offset_queries
from rustmq_sdk.drivers.sqlite.fetching import Fetching
from rustmq_sdk.drivers.sqlite.file import LogFile
from rustmq_sdk.drivers.sqlite.holdings import Holdings
from rustmq_sdk.drivers.sqlite.membership_task import MembershipTask
from rustmq_sdk.drivers.sqlite.rereading import reread
from rustmq_sdk.errors import OutcomeUnknown, Unsupported
from rustmq_sdk.slots import Fetched
from rustmq_sdk.values import Assignment, Checkpoint, CommitOutcome, TopicPartition


class SqliteSubscription:
    """Fills :class:`rustmq_sdk.slots.LogSubscription`.

    Args:
        file: the log.
        group: None commits nothing: ``commit`` raises ``Unsupported`` and ``committed`` knows nothing.
        holdings: what the membership keeps up to date.
        fetching: reads for them.
        membership: whose partitions these are.
    """

    def __init__(
        self, file: LogFile, group: str | None, holdings: Holdings, fetching: Fetching, membership: MembershipTask
    ) -> None:
        self._file = file
        self._group = group
        self._holdings = holdings
        self._fetching = fetching
        self._membership = membership
        self._refused = False

    async def fetch(
        self, wanted: Collection[Assignment], *, max_messages: int, max_bytes: int, max_wait: float
    ) -> Sequence[Fetched]:
        return await self._fetching.fetch(wanted, max_messages, max_bytes, max_wait)

    def wake(self) -> None:
        self._fetching.wake()

    @property
    def missing_topics(self) -> Mapping[str, str]:
        return self._membership.missing_topics

    async def commit(self, checkpoints: Mapping[Assignment, Checkpoint]) -> Mapping[Assignment, CommitOutcome]:
        """RETRY where the file could not be written for now: the same checkpoint may be written again."""
        if self._group is None:
            raise Unsupported("a consumer without a group has nowhere to commit to: name a group")

        outcomes = dict.fromkeys(checkpoints, CommitOutcome.FENCED)
        ours = {each: holding for each in checkpoints if (holding := self._holdings.get(each)) is not None}
        rows = [(holding.partition, holding.epoch, checkpoints[each]) for each, holding in ours.items()]
        if not rows:
            await checkpoint()
            return outcomes

        try:
            written = await self._file.write(
                "source", "commit", claims.commit, self._group, self._membership.member, rows
            )
        except OutcomeUnknown as error:
            if not self._refused:
                log(
                    logging.WARNING,
                    "commits_put_off",
                    "%s: commits are put off until they can be written: %s",
                    self._file.path,
                    error.__cause__ or error,
                )

            self._refused = True
            return outcomes | dict.fromkeys(ours, CommitOutcome.RETRY)

        self._refused = False
        if not all(written):
            self._membership.nudge()

        committed = (each for each, done in zip(ours, written, strict=True) if done)
        return outcomes | dict.fromkeys(committed, CommitOutcome.COMMITTED)

    async def committed(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, Checkpoint | None]:
        if self._group is None:
            await checkpoint()
            return dict.fromkeys(partitions)

        return await self._file.read("source", "committed", offset_queries.committed, partitions, self._group)

    async def start_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        return await self._file.read("source", "start_offsets", offset_queries.starts, partitions)

    async def end_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        return await self._file.read("source", "end_offsets", offset_queries.ends, partitions)

    async def offsets_at(
        self, partitions: Collection[TopicPartition], timestamp_ms: int
    ) -> Mapping[TopicPartition, int]:
        return await self._file.read("source", "offsets_at", offset_queries.offsets_at, partitions, timestamp_ms)

    def seek(self, old: Assignment, new: Assignment, offset: int) -> None:
        self._holdings.seek(old, new, offset)
        self._fetching.look_again()

    async def read(self, assignment: Assignment, offsets: Sequence[int]) -> Fetched:
        return await self._file.read(
            "source", "read", reread, assignment, offsets, check_crcs=self._file.options.check_crcs
        )
