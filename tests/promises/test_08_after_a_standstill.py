"""A process that stood still commits again when the interval is over, wherever it stood."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any

import anyio
import pytest

import rustmq_sdk
from rustmq_sdk._core import commit_due
from rustmq_sdk._core.ledger import Ledger
from rustmq_sdk._runtime.commits import LogCommits

STANDSTILL, SOON = 0.3, 30.0


class Committed:
    def __init__(self) -> None:
        self.event = anyio.Event()

    def on_committed(self, checkpoints: object) -> None:
        self.event.set()


async def test_a_standstill_while_a_checkpoint_is_written_down_is_not_taken_for_work(
    memory_client: rustmq_sdk.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Taken for work, it would put the next commit off by longer than anybody waits here.
    monkeypatch.setattr(commit_due, "PACE", 10 * SOON / STANDSTILL)
    prepare = LogCommits.prepare
    stops = [STANDSTILL]

    def stopped(commits: LogCommits, ledgers: Collection[Ledger]) -> Any:
        time.sleep(stops.pop() if stops else 0)  # as SIGSTOP, a virtual machine that is suspended, or a busy one
        return prepare(commits, ledgers)

    monkeypatch.setattr(LogCommits, "prepare", stopped)
    committed = Committed()
    await memory_client.create_topic("t")
    async with (
        memory_client.producer() as producer,
        memory_client.consumer("t", group="g", commit_interval=0.1, observers=[committed]) as consumer,
    ):
        for _ in range(2):
            await producer.send("t", b"x")
            with anyio.fail_after(SOON):
                await (await consumer.receive()).ack()
                await committed.event.wait()

            committed.event = anyio.Event()
