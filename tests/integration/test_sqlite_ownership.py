"""At most one owner for each partition and epoch.

Processes that come, are stopped, are killed and leave write down what they own and commit, each into a journal of its
own; afterwards the journals are laid side by side. All journals have the time of one monotonic clock, which all
processes of a machine share.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import textwrap
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import msgspec
import pytest

PARTITIONS, PROCESSES, SECONDS, LEASE = 6, 4, 6.0, 0.6

# Owns, commits without a pause, also what it has lost already, and writes all of it down before anything else happens.
PROGRAM = """
    import sys, time, anyio, msgspec
    from rustmq_sdk.drivers import sqlite
    from rustmq_sdk.slots import SourceRequest
    from rustmq_sdk.values import Assignment, Checkpoint

    log, journal, name = sys.argv[1:4]
    lease, partitions = float(sys.argv[4]), int(sys.argv[5])
    journal = open(journal, "ab", buffering=0)

    def note(event, partition, epoch, began, position=0, outcome=""):
        # One write for each line: a process that is killed leaves whole lines.
        line = [event, name, partition, epoch, began, time.monotonic(), position, outcome]
        journal.write(msgspec.json.encode(line) + b"\\n")

    class Listener:
        def __init__(self):
            self.owned, self.known = {}, {}

        async def assigned(self, partitions, generation, *, reason):
            starts = await self.subscription.committed(partitions)
            began = time.monotonic()
            answer = {}
            for tp in partitions:
                note("own", tp.partition, generation, began, starts[tp].offset if starts[tp] else 0)
                assignment = Assignment(tp, generation)
                self.owned[tp] = self.known[assignment] = assignment
                answer[assignment] = 0

            return answer

        async def revoking(self, assignments, budget):
            await self.commit(assignments)

        async def lost(self, assignments, *, reason):
            for each in assignments:
                self.owned.pop(each.tp, None)
                note("lost", each.tp.partition, each.epoch, time.monotonic(), outcome=reason)

        async def commit(self, assignments):
            began, position = time.monotonic(), time.monotonic_ns()
            checkpoints = {each: Checkpoint(position, f"{each.epoch}".encode()) for each in assignments}
            outcomes = await self.subscription.commit(checkpoints)
            for each, outcome in outcomes.items():
                note("commit", each.tp.partition, each.epoch, began, position, outcome.value)

    async def main():
        listener = Listener()
        async with sqlite.open(f"sqlite:///{log}?sync=normal") as driver:
            await driver.admin().create_topic("t", partitions, {})
            request = SourceRequest(topics=["t"], group="g", lease=lease, revoke_budget=0.3)
            async with driver.source(request).subscribe(listener) as listener.subscription:
                print("in", flush=True)
                while not stop:
                    # What is running may be lost in the very moment in which it is committed.
                    await listener.subscription.fetch((), max_messages=0, max_bytes=0, max_wait=0.002)
                    if listener.owned:
                        await listener.commit(list(listener.owned.values()))

    import signal
    stop = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(True))
    anyio.run(main)
"""


class Entry(NamedTuple):
    """One line: what happened between ``began`` and ``ended``."""

    event: str
    name: str
    partition: int
    epoch: int
    began: float
    ended: float
    position: int
    outcome: str


class Fleet:
    """Processes that run the program, and what is done to them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: dict[str, subprocess.Popen[str]] = {}
        self._stopped: set[str] = set()
        self._started = 0

    def start(self) -> None:
        self._started += 1
        name = f"p{self._started}"
        arguments = [str(self._folder / "log.db"), str(self._folder / f"{name}.journal"), name]
        self._running[name] = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(PROGRAM), *arguments, str(LEASE), str(PARTITIONS)],
            stdout=subprocess.PIPE,
            text=True,
        )

    def wait(self) -> None:
        """Until all have joined."""
        for process in self._running.values():
            assert process.stdout is not None
            assert process.stdout.readline() == "in\n"

    def disturb(self, chance: random.Random) -> None:
        """Kills one and starts another, has one leave, or stops one for longer or shorter than its lease."""
        name = chance.choice([*self._running])
        process = self._running[name]
        how = chance.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP, signal.SIGSTOP])
        process.send_signal(how)
        if how is signal.SIGSTOP:
            self._stopped.add(name)
        elif name not in self._stopped or how is signal.SIGKILL:
            self._stopped.discard(name)
            self._end(name)
            self.start()

        for waking in chance.sample(sorted(self._stopped), len(self._stopped) // 2):
            self._stopped.discard(waking)
            self._running[waking].send_signal(signal.SIGCONT)

    def end(self) -> None:
        """All go: those that are stopped wake up first, and try to commit what is not theirs any more."""
        for name in self._stopped:
            self._running[name].send_signal(signal.SIGCONT)

        time.sleep(0.3)
        for name in [*self._running]:
            self._running[name].terminate()
            self._end(name)

    def journals(self) -> list[Entry]:
        """Whole lines: the last one of a process that runs, or was killed, may not be."""
        lines = [line for file in self._folder.glob("*.journal") for line in file.read_bytes().split(b"\n")[:-1]]
        return [msgspec.json.decode(line, type=Entry) for line in lines]

    def kill(self) -> None:
        for process in self._running.values():
            process.kill()
            process.communicate()

    def _end(self, name: str) -> None:
        process = self._running.pop(name)
        try:
            process.communicate(timeout=60)
        finally:
            process.kill()
            process.communicate()


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path)
    yield fleet
    fleet.kill()


def was_worth_looking(entries: Sequence[Entry]) -> bool:
    """Partitions moved; somebody was too late, was stopped for too long, gave a partition up."""
    moved = len({(entry.partition, entry.epoch) for entry in entries}) > 5 * PARTITIONS
    return moved and {"fenced", "expired", "moved"} <= {entry.outcome for entry in entries}


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_at_most_one_owner_for_each_partition_and_epoch(fleet: Fleet, tmp_path: Path) -> None:
    chance = random.Random(20)
    for _ in range(PROCESSES):
        fleet.start()

    fleet.wait()
    until = time.monotonic() + SECONDS
    # On a slow machine it takes longer until all of it has happened.
    while time.monotonic() < until or not was_worth_looking(fleet.journals()):
        time.sleep(chance.uniform(0.1, 0.4))  # real processes, real leases
        fleet.disturb(chance)

    fleet.end()
    entries = fleet.journals()
    by_partition = defaultdict[int, list[Entry]](list)
    for entry in entries:
        by_partition[entry.partition].append(entry)

    assert set(by_partition) == set(range(PARTITIONS))
    for partition, theirs in by_partition.items():
        one_owner_an_epoch(theirs)
        nothing_is_committed_under_a_fenced_epoch(theirs)
        the_last_commit_is_what_the_file_has(theirs, stored(tmp_path, partition))


def one_owner_an_epoch(entries: Sequence[Entry]) -> None:
    owners = defaultdict[int, set[str]](set)
    for entry in entries:
        if entry.event == "own" or entry.outcome == "committed":
            owners[entry.epoch].add(entry.name)

    assert not {epoch: names for epoch, names in owners.items() if len(names) > 1}


def nothing_is_committed_under_a_fenced_epoch(entries: Sequence[Entry]) -> None:
    """A commit that began after a later epoch was known to its owner must not have counted."""
    claims = sorted((entry.began, entry.epoch) for entry in entries if entry.event == "own")
    for commit in entries:
        if commit.outcome == "committed":
            later = [epoch for at, epoch in claims if at < commit.began and epoch > commit.epoch]
            assert not later, f"{commit} after {later}"

    # What a new owner found is never older than what an earlier one was told it had committed.
    for claim in entries:
        if claim.event == "own":
            before = [each.position for each in entries if each.outcome == "committed" and each.epoch < claim.epoch]
            assert claim.position >= max(before, default=0), f"{claim}"


def the_last_commit_is_what_the_file_has(entries: Sequence[Entry], stored: tuple[int, bytes]) -> None:
    position, extra = stored
    committed = [entry for entry in entries if entry.outcome == "committed"]
    # A process may have been killed between a commit and its line in the journal: then the file has more.
    last = max(committed, key=lambda entry: (entry.epoch, entry.position))
    assert (int(extra), position) >= (last.epoch, last.position)


def stored(folder: Path, partition: int) -> Any:
    connection = apsw.Connection(str(folder / "log.db"))
    sql = "SELECT c.position, c.extra FROM claim AS c JOIN partition AS p ON p.id = c.partition WHERE p.number = ?"
    row = connection.execute(sql, (partition,)).get
    connection.close()
    return row
