"""All processes of the tour: started here, watched by their journals, and ended whatever happens."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import anyio

from demo_parts.child import FINISHED, Child
from demo_parts.journal import Line
from demo_parts.lifeline import GRACE
from demo_parts.tally import Tally

LOOK = 0.005
"""Seconds between two looks at the journals."""


class Processes:
    """A context manager; no process outlives the block.

    Args:
        program: what starts one, its role apart.
        folder: for the journals.
        tally: is told every line.
        show: is told the lines that a person should see.
    """

    def __init__(self, program: Sequence[str], folder: Path, tally: Tally, show: Callable[[Line], None]) -> None:
        self.consumers: dict[str, Child] = {}
        """By name, each as it was started last."""
        self._program = program
        self._folder = folder
        self._tally = tally
        self._show = show
        self._all: list[Child] = []
        self._owners: dict[int, str] = {}
        """Partition to the consumer that has said last that it was assigned."""

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        end = time.monotonic() + GRACE
        try:
            for child in self._all:
                child.ask_to_end()

            with suppress(subprocess.TimeoutExpired):
                for child in self._all:
                    child.wait(max(0.0, end - time.monotonic()))
        finally:
            for child in self._all:
                child.close()

    def start_producer(self) -> Child:
        return self._start("producer", ends=FINISHED)

    def start_consumer(self, name: str) -> Child:
        self.consumers[name] = self._start("consumer", name)
        return self.consumers[name]

    def partitions_of(self, name: str) -> list[int]:
        """In order. A dead consumer has its partitions until another has them."""
        return sorted(partition for partition, owner in self._owners.items() if owner == name)

    async def watch(self) -> None:
        """Takes note of what the processes do, until cancelled or until one has ended that should not have."""
        while True:
            self.look()
            self.check()
            await anyio.sleep(LOOK)

    def look(self) -> None:
        """Reads what was written since the last look."""
        for child in self._all:
            for line in child.news():
                self._tally.take(line)
                self._owners |= dict.fromkeys(line.partitions, child.name)
                self._show(line)

    def check(self) -> None:
        """Raises ``UnexpectedEnd`` if a process has ended although nobody wanted it to."""
        for child in self._all:
            child.check()

    def _start(self, role: str, name: str = "", *, ends: int | None = None) -> Child:
        journal = self._folder / f"{role}-{len(self._all)}.journal"  # one a process, so that half a line stays alone
        command = [sys.executable, *self._program, "--role", role, "--name", name, "--journal", str(journal)]
        self._all.append(Child(role, name, command, journal, ends=ends))
        return self._all[-1]
