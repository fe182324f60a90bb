"""One call to the disk fails, each in turn: a clear error or a recovery, and never a lost confirmed message.

The faults come from a layer of SQLite's own, between it and the operating system (a VFS), for the files of one log at a
time. So many logs can have their faults side by side, and what waits for a second before it tries again costs little.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio
import apsw
import pytest

import rustmq_sdk
from rustmq_sdk.drivers.sqlite import integrity_check

T = TypeVar("T")

TOPIC, GROUP = "quakes", "alarm"
PARTITIONS = 2
MESSAGES = 8
AT_ONCE = 12
SYSTEM = apsw.vfs_names()[0]


@dataclass
class Fault:
    """The ``number``-th call of ``method`` on any file of the log fails, before or after it had its effect."""

    method: str = ""
    error: type[apsw.Error] = apsw.IOError
    number: int = -1
    after: bool = False
    calls: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        effect = "after its effect" if self.after else "before it"
        return f"{self.method} number {self.number} fails with {self.error.__name__} {effect}"

    def hits(self, method: str) -> bool:
        """Counts a call; whether it is the one."""
        number = self.calls[method]
        self.calls[method] += 1
        return method == self.method and number == self.number


class FaultyFile(apsw.VFSFile):
    """A file of a log that has a fault."""

    def __init__(self, fault: Fault, name: Any, flags: list[int]) -> None:
        self._fault = fault
        super().__init__(SYSTEM, name, flags)

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802  # the names are SQLite's
        return self._call("xRead", partial(super().xRead, amount, offset))

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        self._call("xWrite", partial(super().xWrite, data, offset))

    def xSync(self, flags: int) -> None:  # noqa: N802
        self._call("xSync", partial(super().xSync, flags))

    def xTruncate(self, size: int) -> None:  # noqa: N802
        self._call("xTruncate", partial(super().xTruncate, size))

    def _call(self, method: str, call: Callable[[], T]) -> T:
        if not self._fault.hits(method):
            return call()

        if self._fault.after:
            call()

        raise self._fault.error(str(self._fault))


class FaultyDisk(apsw.VFS):
    """The default disk, as long as it lives; only the files in ``faults`` are any different."""

    def __init__(self, faults: dict[str, Fault]) -> None:
        self._faults = faults
        super().__init__("faulty", SYSTEM, makedefault=True)

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        path = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        fault = next((fault for file, fault in self._faults.items() if path.startswith(file)), None)
        return apsw.VFSFile(SYSTEM, name, flags) if fault is None else FaultyFile(fault, name, flags)


@pytest.fixture
def faults() -> Iterator[dict[str, Fault]]:
    """The fault of each file; a file without one is like any other."""
    faults: dict[str, Fault] = {}
    disk = FaultyDisk(faults)
    yield faults
    disk.unregister()


class Run:
    """What one program on one log knows to be done."""

    def __init__(self, path: Path) -> None:
        self.url = f"sqlite:///{path}"
        self.path = path
        self.tried: set[str] = set()
        self.confirmed: set[str] = set()
        self.durable: set[str] = set()
        self.error: rustmq_sdk.RustMQError | None = None

    async def work(self) -> None:
        """Sends and consumes; ends early with an error of the package, if it has to."""
        try:
            async with rustmq_sdk.Client(self.url) as client:
                await client.create_topic(TOPIC, partitions=PARTITIONS)
                await self._send(client)
                await self._consume(client)
        except rustmq_sdk.RustMQError as error:
            self.error = error
        except BaseExceptionGroup as group:
            (self.error,) = group.split(rustmq_sdk.RustMQError)[0].exceptions  # type: ignore[union-attr,assignment]

    async def _send(self, client: rustmq_sdk.Client) -> None:
        async with client.producer() as producer:
            for number in range(MESSAGES):
                self.tried.add(f"{number}")
                await producer.send(TOPIC, f"{number}", key=f"{number}")
                self.confirmed.add(f"{number}")

    async def _consume(self, client: rustmq_sdk.Client) -> None:
        async with client.consumer(TOPIC, group=GROUP) as consumer:
            for _ in range(len(self.confirmed)):
                message = await consumer.receive(timeout=50)
                if await message.ack(durable=True) is rustmq_sdk.AckResult.DURABLE:
                    self.durable.add(message.text())

    async def left(self, group: str | None) -> Counter[str]:
        """What a consumer of this group gets, now that the disk is well."""
        found: Counter[str] = Counter()
        async with rustmq_sdk.Client(self.url) as client, client.consumer(TOPIC, group=group) as consumer:
            while len(consumer.assigned_partitions) < PARTITIONS or any((await consumer.get_lag()).values()):
                with suppress(TimeoutError):
                    batch = await consumer.receive_batch(timeout=0.05)
                    found.update(message.text() for message in batch)
                    await batch.ack()

        return found


async def check(folder: Path, fault: Fault, faults: dict[str, Fault]) -> None:
    path = folder / f"{fault}".replace(" ", "-")
    run = Run(path)
    faults[str(path)] = fault
    with anyio.fail_after(100):
        await run.work()

    del faults[str(path)]
    if run.error is not None:
        assert str(path) in str(run.error), fault

    async with rustmq_sdk.Client(run.url) as client:
        await client.create_topic(TOPIC, partitions=PARTITIONS)

    stored = await run.left(None)
    assert run.confirmed <= stored.keys() <= run.tried, fault
    assert set(stored.values()) <= {1}, fault
    again = await run.left(GROUP)
    assert again.keys() == stored.keys() - run.durable, fault
    assert integrity_check(path) == (), fault


async def calls_of_a_good_run(folder: Path, faults: dict[str, Fault]) -> Counter[str]:
    run = Run(folder / "good.db")
    faults[str(run.path)] = counting = Fault()
    await run.work()
    assert run.error is None
    assert len(run.durable) == MESSAGES
    return counting.calls


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("method", "error", "after"),
    [
        ("xWrite", apsw.FullError, False),
        ("xWrite", apsw.IOError, False),
        ("xWrite", apsw.IOError, True),
        ("xSync", apsw.IOError, False),
        ("xSync", apsw.IOError, True),
        ("xRead", apsw.IOError, False),
        ("xTruncate", apsw.IOError, False),
    ],
)
async def test_nothing_confirmed_is_lost_whichever_call_fails(
    tmp_path: Path, faults: dict[str, Fault], method: str, error: type[apsw.Error], after: bool
) -> None:
    calls = (await calls_of_a_good_run(tmp_path, faults))[method]
    assert calls > 0
    limit = anyio.CapacityLimiter(AT_ONCE)

    async def one(number: int) -> None:
        async with limit:
            await check(tmp_path, Fault(method, error, number, after), faults)

    async with anyio.create_task_group() as tasks:
        for number in chosen(calls):
            tasks.start_soon(one, number)


def chosen(calls: int) -> Collection[int]:
    """The first calls one by one, and then every nineteenth: they repeat themselves."""
    return [*range(min(calls, 12)), *range(12, calls, 19)]
