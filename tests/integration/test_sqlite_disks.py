"""The embedded log on a disk that runs full, and on one that the system makes read-only while it is in use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

import rustmq_sdk
from rustmq_sdk.drivers.sqlite import integrity_check, membership_task
from rustmq_sdk.errors import PermanentDriverError, RustMQError, TransientDriverError
from tests.integration.disks import Disk, breakable_disk, small_disk
from tests.integration.others import PATIENCE

TOPIC, GROUP = "quakes", "alarm"
LARGE = "x" * 50_000


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Disk]:
    with small_disk(tmp_path / "small", "4m") as disk:
        yield disk


@pytest.fixture
def breakable(tmp_path: Path) -> Iterator[Disk]:
    with breakable_disk(tmp_path / "breakable") as disk:
        yield disk


async def send_until_refused(producer: rustmq_sdk.Producer) -> tuple[list[str], RustMQError]:
    """What was confirmed before, and the error."""
    confirmed: list[str] = []
    for number in range(1000):
        try:
            await producer.send(TOPIC, f"{number} {LARGE}")
        except RustMQError as error:
            return confirmed, error

        confirmed.append(f"{number}")

    raise AssertionError("the disk has room for all of it")


async def send_small(producer: rustmq_sdk.Producer) -> None:
    """Until one is refused."""
    while True:
        await producer.send(TOPIC, "x" * 1000)


async def collect(consumer: rustmq_sdk.Consumer, count: int) -> list[str]:
    found: list[str] = []
    while len(found) < count:
        message = await consumer.receive(timeout=PATIENCE)
        found.append(message.text().split()[0])
        await message.ack()

    return found


async def test_a_full_disk_refuses_clearly_and_all_goes_on_when_there_is_room(small: Disk) -> None:
    path = small.folder / "log.db"
    async with (
        rustmq_sdk.Client(f"sqlite:///{path}") as client,
        client.producer() as patient,
        client.producer(send_timeout=0.5) as producer,
        client.consumer(TOPIC, group=GROUP, commit_interval=0.05) as consumer,
    ):
        await patient.send(TOPIC, "first")
        found = await collect(consumer, 1)
        small.fill()
        confirmed, error = await send_until_refused(producer)
        assert isinstance(error, TransientDriverError)
        assert "disk is full" in str(error)
        assert str(path) in str(error)

        # What is there can be read, and what is acked waits for room.
        found += await collect(consumer, len(confirmed))
        small.free()
        await patient.send(TOPIC, "last")
        found += await collect(consumer, 1)
        await consumer.commit()

    assert found[0] == "first"
    assert found[-1] == "last"
    assert found[1:-1] == confirmed
    assert integrity_check(path) == ()
    async with rustmq_sdk.Client(f"sqlite:///{path}") as client, client.consumer(TOPIC, group=GROUP) as consumer:
        assert not any((await consumer.get_lag()).values())


async def test_a_consumer_whose_disk_is_full_is_not_well_until_there_is_room(
    small: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    path = small.folder / "log.db"
    async with (
        rustmq_sdk.Client(f"sqlite:///{path}") as client,
        client.producer() as patient,
        client.producer(send_timeout=0.5) as producer,
        client.consumer(TOPIC, group=GROUP, commit_interval=0.1) as consumer,
    ):
        await patient.send_batch(TOPIC, ["x" * 10] * 100)
        await collect(consumer, 1)
        await consumer.commit()
        small.fill()
        # Small ones, so that a commit, which is as small, finds no room where the last one found none.
        with pytest.raises(TransientDriverError, match="disk is full"):
            await send_small(producer)

        await collect(consumer, 99)
        with anyio.fail_after(PATIENCE):
            while consumer.health().ok:  # noqa: ASYNC110  # nothing tells of it
                await anyio.sleep(0.02)

        assert [reason.code for reason in consumer.health().reasons] == ["commit_failing"]
        (line,) = [record for record in caplog.records if record.__dict__.get("event") == "commits_put_off"]
        assert "disk is full" in line.getMessage()
        assert str(path) in line.getMessage()
        small.free()
        await consumer.commit()
        assert consumer.health().ok


async def test_who_cannot_join_for_want_of_room_says_so_and_joins_when_there_is_some(
    small: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(membership_task, "AGAIN_SECONDS", 0.05)
    path = small.folder / "log.db"
    async with rustmq_sdk.Client(f"sqlite:///{path}") as client, client.producer() as producer:
        await producer.send(TOPIC, "first")
        small.fill()
        async with client.producer(send_timeout=0.2) as other:
            with pytest.raises(TransientDriverError, match="disk is full"):
                await send_small(other)

        # However long the lease is.
        async with client.consumer(TOPIC, group=GROUP, start="earliest", lease=3600) as consumer:
            with pytest.raises(TimeoutError, match=r"the group cannot be written: .*log\.db.*disk is full"):
                await consumer.receive(timeout=0.5)

            small.free()
            assert await collect(consumer, 1) == ["first"]
            assert consumer.health().ok


async def test_a_log_can_be_closed_and_opened_and_made_while_the_disk_is_full(small: Disk) -> None:
    path = small.folder / "log.db"
    confirmed: list[str] = []
    for _ in range(2):
        async with rustmq_sdk.Client(f"sqlite:///{path}") as client, client.producer(send_timeout=0.5) as producer:
            small.fill()
            more, error = await send_until_refused(producer)
            assert isinstance(error, TransientDriverError)
            assert "disk is full" in str(error)
            confirmed += more

    with pytest.raises(TransientDriverError, match=str(small.folder)):
        async with rustmq_sdk.Client(f"sqlite:///{small.folder}/new.db"):
            pass

    small.free()
    assert integrity_check(path) == ()
    async with rustmq_sdk.Client(f"sqlite:///{path}") as client, client.producer() as producer:
        await producer.send(TOPIC, "last")
        async with client.consumer(TOPIC) as consumer:
            assert await collect(consumer, len(confirmed) + 1) == [*confirmed, "last"]


async def test_a_disk_that_turns_read_only_is_a_permanent_error(breakable: Disk) -> None:
    path = breakable.folder / "log.db"
    async with rustmq_sdk.Client(f"sqlite:///{path}") as client, client.producer() as producer:
        await producer.send(TOPIC, "before")
        breakable.break_down()
        for _ in range(2):
            with pytest.raises(PermanentDriverError, match=r"read-only.*the system's log") as refusal:
                await producer.send(TOPIC, "after")

            assert str(path) in str(refusal.value)
