"""Appends whose COMMIT has failed while other processes write the same log: stored once, whatever became of it.

The disk fails at every tenth sync of the write-ahead log, before or after its effect, in each of several processes. They
have producers, whose sequence numbers tell whether an append was stored; none may be lost, or stored twice.
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
            if syncs % 20 == 0:
                super().xSync(flags)
            raise apsw.IOError("on purpose")
        super().xSync(flags)


class Disk(apsw.VFS):
    def xOpen(self, name, flags):
        wal = name is not None and (name.filename() if hasattr(name, "filename") else name).endswith("-wal")
        return File(name, flags) if wal else apsw.VFSFile(system, name, flags)


disk = Disk("failing", system, makedefault=True)


async def main():
    async with rustmq_sdk.Client(f"sqlite:///{path}") as client, client.producer() as producer:
        for number in range(count):
            await producer.send("quakes", f"{name}:{number}")


anyio.run(main)
print(failed)
"""


async def contents(path: Path, count: int) -> Counter[str]:
    found: Counter[str] = Counter()
    async with rustmq_sdk.Client(f"sqlite:///{path}", create=False) as client, client.consumer(TOPIC) as consumer:
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
        assert int(said) >= 3, "commits have failed, and were made once more"

    assert integrity_check(path) == ()
    sent = {f"s{number}:{message}" for number in range(PROCESSES) for message in range(MESSAGES)}
    assert anyio.run(contents, path, len(sent)) == Counter(dict.fromkeys(sent, 1))
