"""Promise 13, by signals: the first one stops, the second one ends the process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from rustmq_sdk import ConfigurationError, Consumer, ConsumerStateError, Message, stop_on_signals
from tests.promises.stage import Stage, in_background, numbered


class TestSignals:
    """In real time and in processes: signals are the machine's."""

    @pytest.mark.parametrize("consumers", [(), (None,), ("orders",), (Consumer,), ([],)])
    def test_what_cannot_be_stopped_is_refused_at_once(self, consumers: Any) -> None:
        before = signal.getsignal(signal.SIGTERM)
        refused = pytest.raises(ConfigurationError, match=r"Write stop_on_signals\(consumer\)")
        with refused, stop_on_signals(*consumers):
            raise AssertionError("it cannot be entered")

        assert signal.getsignal(signal.SIGTERM) is before

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    async def test_the_first_one_stops(self, stage: Stage, number: signal.Signals) -> None:
        stage.send(3)
        before = signal.getsignal(number)
        seen: list[str] = []
        async with stage.consumer() as consumer:
            with stop_on_signals(consumer), anyio.fail_after(10):
                async for message in consumer:
                    seen.append(message.text())
                    await message.ack()
                    if len(seen) == 3:
                        threading.Timer(0.02, os.kill, (os.getpid(), number)).start()

            assert signal.getsignal(number) is before

        assert seen == numbered(3)
        assert stage.committed() == 3

    async def test_it_stops_several_consumers(self, stage: Stage) -> None:
        stage.create()
        stage.create(topic="other")
        async with stage.consumer() as one, stage.consumer("other") as two, anyio.create_task_group() as group:
            with stop_on_signals(one, two), anyio.fail_after(10):
                outcomes = [await in_background(group, _collect, consumer) for consumer in (one, two)]
                os.kill(os.getpid(), signal.SIGTERM)
                while outcomes != [[[]], [[]]]:  # noqa: ASYNC110  # a signal has no event
                    await anyio.sleep(0.001)

    def test_in_another_thread_it_is_refused(self) -> None:
        errors: list[BaseException] = []

        def enter() -> None:
            try:
                with stop_on_signals(SimpleNamespace(stop=print)):
                    raise AssertionError("Python allows that in the main thread only")
            except ConsumerStateError as error:
                errors.append(error)

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        assert "main thread" in str(errors[0])

    @pytest.mark.parametrize("backend", ["asyncio", "trio"])
    @pytest.mark.parametrize(("signals", "code"), [(1, 0), (2, 128 + signal.SIGTERM)])
    def test_the_second_one_ends_the_process_at_once(self, backend: str, signals: int, code: int) -> None:
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(PROGRAM), backend],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        with process:
            assert process.stdout is not None
            assert process.stdout.readline() == "at work\n"
            process.terminate()
            assert process.stdout.readline() == "asked\n"
            if signals == 2:
                process.terminate()
            else:
                process.send_signal(signal.SIGUSR1)

            assert process.wait(10) == code
            assert process.stdout.read() == ("" if signals == 2 else "handled\nleft\n")


PROGRAM = """
import signal, sys, threading
from types import SimpleNamespace
import anyio, rustmq_sdk

async def main():
    asked, release = threading.Event(), threading.Event()
    signal.signal(signal.SIGUSR1, lambda *_: release.set())
    async with rustmq_sdk.Client("memory://") as client, client.producer() as producer:
        await producer.send("t", "m")
        async with client.consumer("t", group="g") as consumer:

            async def handler(message):
                print("at work", flush=True)
                while not asked.is_set():
                    await anyio.sleep(0.001)

                print("asked", flush=True)
                while not release.is_set():
                    await anyio.sleep(0.001)

                print("handled", flush=True)

            with rustmq_sdk.stop_on_signals(consumer, SimpleNamespace(stop=asked.set)):
                await consumer.run(handler)

    print("left", flush=True)

anyio.run(main, backend=sys.argv[1])
"""


async def _collect(consumer: Consumer) -> list[Message]:
    return [message async for message in consumer]
