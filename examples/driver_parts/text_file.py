"""A text file as a log: a line is a message, and its byte position is its offset (so lag is in bytes).

Longer than the other examples: ``Source`` and ``LogSubscription`` ask for all these methods, and a driver without some
of them would not be a true one. It serves one process, and a disk so quick that nobody minds the loop waiting for it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType

import anyio
import anyio.lowlevel
import msgspec

from driver_parts.lines import fetched, read_lines, write_durably
from rustmq_sdk import TopicPartition, Unsupported
from rustmq_sdk.slots import AssignmentListener, Capabilities, Fetched
from rustmq_sdk.values import Assignment, Checkpoint, CommitOutcome, Gone


class TextFile:
    capabilities = Capabilities(kind="log", checkpoint_room=None, seek=True, read=True)
    missing_topics: Mapping[str, str] = MappingProxyType({})

    def __init__(self, path: Path, group: str) -> None:
        self._path, self._committed = path, path.with_suffix(f".{group}")
        self._mine, self._next, self._woken = Assignment(TopicPartition(path.name, 0), None), 0, anyio.Event()

    @asynccontextmanager
    async def subscribe(self, listener: AssignmentListener) -> AsyncIterator[TextFile]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._join, listener)
            yield self
            tasks.cancel_scope.cancel()

    async def _join(self, listener: AssignmentListener) -> None:
        ((self._mine, offset),) = (await listener.assigned([self._mine.tp], None)).items()
        self._next = offset or 0
        self.wake()

    async def fetch(
        self, wanted: Collection[Assignment], *, max_messages: int, max_bytes: int, max_wait: float
    ) -> Sequence[Fetched]:
        await anyio.lowlevel.checkpoint()  # the others' turn, even if there are always messages
        with anyio.move_on_after(max_wait):
            while not (lines := read_lines(self._path, self._next, max_messages * (self._mine in wanted), max_bytes)):
                if self._woken.is_set():
                    break

                with anyio.move_on_after(0.03):  # a file does not tell when it has grown
                    await self._woken.wait()

        self._woken = anyio.Event()
        self._next = lines[-1].end if lines else self._next
        return [fetched(self._mine, lines, self._next)] if lines else []

    def wake(self) -> None:
        self._woken.set()

    def seek(self, old: Assignment, new: Assignment, offset: int) -> None:
        if old is self._mine:
            self._mine, self._next = new, offset

    async def read(self, assignment: Assignment, offsets: Sequence[int]) -> Fetched:
        lines = [line for offset in offsets for line in read_lines(self._path, offset, 1, 1)]
        lost = sorted(set(offsets) - {line.offset for line in lines})
        gone = [Gone(assignment.tp, offset, offset + 1, "the file is shorter now") for offset in lost]
        return fetched(assignment, lines, offsets[-1] + 1, gone)

    async def commit(self, checkpoints: Mapping[Assignment, Checkpoint]) -> Mapping[Assignment, CommitOutcome]:
        if self._mine in checkpoints:
            write_durably(self._committed, msgspec.json.encode(checkpoints[self._mine]))

        return {each: CommitOutcome.COMMITTED if each is self._mine else CommitOutcome.FENCED for each in checkpoints}

    async def committed(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, Checkpoint | None]:
        text = self._committed.read_bytes() if self._committed.exists() else b"null"
        return dict.fromkeys(partitions, msgspec.json.decode(text, type=Checkpoint | None))

    async def start_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        return dict.fromkeys(partitions, 0)

    async def end_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        return dict.fromkeys(partitions, self._path.read_bytes().rfind(b"\n") + 1)

    async def offsets_at(self, partitions: Collection[TopicPartition], when: int) -> Mapping[TopicPartition, int]:
        raise Unsupported("a line does not say when it was written")
