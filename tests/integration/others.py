"""Members of one group on one log file, in this process and in others."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TypeAlias

import anyio

from rustmq_sdk.drivers.sqlite import SqliteDriver
from rustmq_sdk.slots import LogSubscription, SourceRequest
from rustmq_sdk.testing.contracts.subscriber import Subscriber, log_member
from rustmq_sdk.testing.listener import OnRevoking, RecordingListener
from rustmq_sdk.values import TopicPartition

TOPIC, GROUP = "quakes", "alarm"
TPS = [TopicPartition(TOPIC, number) for number in range(4)]
PATIENCE = 50.0

Member: TypeAlias = Subscriber[LogSubscription]

# Another member: tells each of its calls in a line, commits what it has fetched, and obeys lines from its input.
OTHER = """
    import sys, anyio
    from rustmq_sdk.drivers import sqlite
    from rustmq_sdk.slots import SourceRequest
    from rustmq_sdk.testing.contracts.subscriber import log_member
    from rustmq_sdk.testing.listener import RecordingListener
    from rustmq_sdk.values import Checkpoint, OutgoingMessage

    path, lease = sys.argv[1], float(sys.argv[2])
    listener = RecordingListener()

    async def obey(member, driver):
        while True:
            await member.fetch([], max_wait=0.02)
            line = await anyio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)
            word, *rest = line.split()
            if word == "owned":
                print(*sorted(tp.partition for tp in listener.assignments))
            elif word == "commit":
                held = list(listener.assignments.values()) or listener.gone
                outcomes = await member.subscription.commit({each: Checkpoint(int(rest[0])) for each in held})
                print(*sorted({outcome.value for outcome in outcomes.values()}))
            elif word == "block":
                import time; time.sleep(float(rest[0]))
                print("unblocked")
            elif word == "send":
                await driver.sink().append("quakes", 0, [OutgoingMessage(rest[0].encode())], sequence=None)
                print("sent")
            elif word == "why":
                print(*(call.reason for call in listener.calls if call.reason is not None))
            elif word == "me":
                print(member.subscription._membership.member.hex())
            elif word == "mute":
                from rustmq_sdk.drivers.sqlite.doorbell import Doorbell
                Doorbell.ring = lambda bell: None
                print("mute")
            elif word == "fork":
                import os, signal
                child = os.fork()
                if child == 0:
                    signal.pause()

                print(child)
            elif word == "leave":
                return

            sys.stdout.flush()

    async def main():
        async with sqlite.open(f"sqlite:///{path}") as driver:
            request = SourceRequest(topics=["quakes"], group="alarm", lease=lease, revoke_budget=1.0)
            async with log_member(driver, request, listener, 50) as member:
                print("joined", flush=True)
                await obey(member, driver)

    anyio.run(main)
"""


class Other:
    """The other process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    async def ask(self, line: str) -> str:
        self.say(line)
        return await anyio.to_thread.run_sync(self.hear)

    async def owns(self, numbers: list[int]) -> None:
        with anyio.fail_after(PATIENCE):
            while [int(number) for number in (await self.ask("owned")).split()] != numbers:
                pass


@contextmanager
def another(path: Path, lease: float) -> Iterator[Other]:
    command = [sys.executable, "-c", textwrap.dedent(OTHER), str(path), str(lease)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        other = Other(process)
        try:
            assert other.hear() == "joined"
            yield other
        finally:
            process.kill()


@asynccontextmanager
async def member_of(
    driver: SqliteDriver, lease: float = 10, on_revoking: OnRevoking | None = None
) -> AsyncIterator[Member]:
    request = SourceRequest(topics=[TOPIC], group=GROUP, lease=lease, revoke_budget=1.0)
    async with log_member(driver, request, RecordingListener(on_revoking=on_revoking), PATIENCE) as member:
        yield member


def reasons(member: Member) -> list[str]:
    return [call.reason for call in member.listener.calls if call.reason is not None]


async def until(condition: Callable[[], bool]) -> None:
    """Of what threads do, which tell no loop."""
    with anyio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await anyio.sleep(0.005)
