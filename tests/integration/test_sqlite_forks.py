"""A forked child does not use a log that its parent had open: what it confirmed could be thrown away."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

FORKING = """
    import asyncio, multiprocessing, sys
    import rustmq_sdk

    url, when = sys.argv[1:]
    processes = multiprocessing.get_context("fork")

    async def work():
        try:
            async with rustmq_sdk.Client(url) as client, client.producer() as producer:
                await producer.send("t", "from the child")
                print("sent", flush=True)
        except rustmq_sdk.RustMQError as error:
            print(type(error).__name__, error, flush=True)

    def child():
        process = processes.Process(target=lambda: asyncio.run(work()))
        process.start()
        process.join(20)
        print(process.exitcode, flush=True)

    async def parent():
        async with rustmq_sdk.Client(url) as client, client.producer() as producer:
            await producer.send("t", "from the parent")
            if when == "open":
                child()

    asyncio.run(parent())
    if when == "closed":
        child()
"""


def forking(path: Path, when: str) -> list[str]:
    program = textwrap.dedent(FORKING)
    command = [sys.executable, "-W", "ignore", "-c", program, f"sqlite:///{path}", when]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=40).stdout.splitlines()


def test_a_log_that_was_open_at_the_fork_is_refused_in_the_child(tmp_path: Path) -> None:
    said, status = forking(tmp_path / "log.db", "open")
    assert said.startswith("ConfigurationError")
    assert "forked from one that had the file open" in said
    assert status == "0"


def test_a_log_that_was_closed_before_the_fork_is_the_childs_as_well(tmp_path: Path) -> None:
    assert forking(tmp_path / "log.db", "closed") == ["sent", "0"]
