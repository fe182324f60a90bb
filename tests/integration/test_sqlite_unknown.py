"""Appends whose COMMIT has failed while other processes write the same log: stored once, whatever became of it.

In each of several processes some syncs of the write-ahead log fail, and some commits are reported as failed that are
not. Their producers' sequence numbers tell whether an append was stored; none may be lost, or stored twice.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import anyio
import pytest

import rustmq_sdk
from rustmq_sdk.drivers.sqlite import integrity_check

TOPIC = "quakes"
PROCESSES, MESSAGES = 3, 60

SENDER = """
import sys, anyio, apsw, rustmq_sdk
from rustmq_sdk.drivers.sqlite.failures import CommitFailed
from rustmq_sdk.drivers.sqlite.writer import Writer

path, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
system = apsw.vfs_names()[0]
syncs = failed = 0


class File(apsw.VFSFile):
    def __init__(self, name, flags):
        super().__init__(system, name, flags)

    def xSync(self, flags):
        global syncs, failed
        syncs += 1
        if syncs > 20 and syncs % 10 == 0:
            failed += 1
            raise apsw.IOError("on purpose")
        super().xSync(flags)


class Disk(apsw.VFS):
    def xOpen(self, name, flags):
        wal = name is not None and (name.filename() if hasattr(name, "filename") else name).endswith("-wal")
        return File(name, flags) if wal else apsw.VFSFile(system, name, flags)


disk = Disk("failing", system, makedefault=True)
commit = Writer._commit
commits = lost = 0


def commit_and_lose_the_answer(writer, connection):
    global commits, lost
    commit(writer, connection)
    commits += 1
    if commits % 15 == 14:
        lost += 1
        writer._disconnect()
        raise CommitFailed("on purpose")


Writer._commit = commit_and_lose_the_answer


async def main():
    async with rustmq_sdk.Client(f"sqlite:///{path}") as client, client.producer() as producer:
        for number in range(count):
            await producer.send("quakes", f"{name}:{number}")


anyio.run(main)
print(failed, lost)
"""


async def contents(path: Path, count: int) -> Counter[str]:
    found: Counter[str] = Counter()
    async with rustmq_sdk.Client(f"sqlite:///{path}?create=false") as client, client.consumer(TOPIC) as consumer:
        while found.total() < count:
            batch = await consumer.receive_batch(timeout=20)
            found.update(message.text() for message in batch)
            await batch.ack()

        assert not any((await consumer.get_lag()).values())

    return found


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_every_message_is_stored_once_though_commits_fail_in_several_processes(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    senders = [
        subprocess.Popen(
            [sys.executable, "-c", SENDER, str(path), f"s{number}", str(MESSAGES)], stdout=subprocess.PIPE, text=True
        )
        for number in range(PROCESSES)
    ]
    for sender in senders:
        said, _ = sender.communicate(timeout=100)
        assert sender.returncode == 0, "each send was confirmed in the end"
        assert min(map(int, said.split())) >= 3, "commits have failed, and answers were lost"

    assert integrity_check(path) == ()
    sent = {f"s{number}:{message}" for number in range(PROCESSES) for message in range(MESSAGES)}
    assert anyio.run(contents, path, len(sent)) == Counter(dict.fromkeys(sent, 1))
