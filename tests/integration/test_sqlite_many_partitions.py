"""Fetches from more partitions than one fetch can serve: whole pieces in turns, and nobody is forgotten."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from rustmq_sdk.drivers.sqlite import SqliteDriver
from rustmq_sdk.drivers.sqlite.fetching import PARTITIONS_AT_ONCE, PIECE, READ_AHEAD
from rustmq_sdk.drivers.sqlite.subscription import SqliteSubscription
from rustmq_sdk.slots import Fetched, LogSubscription, SourceRequest
from rustmq_sdk.testing.contracts.subscriber import Subscriber, log_member
from rustmq_sdk.testing.listener import RecordingListener
from rustmq_sdk.values import OutgoingMessage, TopicPartition

TOPIC = "quakes"
MANY = 3 * PARTITIONS_AT_ONCE


@pytest.fixture
async def driver(tmp_path: Path) -> AsyncIterator[SqliteDriver]:
    async with SqliteDriver(tmp_path / "log.db") as driver:
        yield driver


async def append(driver: SqliteDriver, partition: int, count: int) -> None:
    messages = [OutgoingMessage(b"%d" % number) for number in range(count)]
    await driver.sink().append(TOPIC, partition, messages, sequence=None)


@asynccontextmanager
async def member_of_all(driver: SqliteDriver, partitions: int) -> AsyncIterator[Subscriber[LogSubscription]]:
    request = SourceRequest(topics=[TOPIC], group="alarm", lease=10, revoke_budget=5)
    async with log_member(driver, request, RecordingListener(committed=True), 10) as member:
        await member.owns([TopicPartition(TOPIC, number) for number in range(partitions)])
        yield member


async def fetch(member: Subscriber[LogSubscription], max_messages: int) -> dict[int, Fetched]:
    """What one fetch brought, by partition."""
    pieces = await member.fetch(max_messages=max_messages, max_wait=10)
    return {piece.assignment.tp.partition or 0: piece for piece in pieces}


async def test_partitions_that_are_full_get_whole_pieces_in_turn(driver: SqliteDriver) -> None:
    partitions, fetches = 20, 4
    await driver.admin().create_topic(TOPIC, partitions, {})
    for number in range(partitions):
        await append(driver, number, 3 * PIECE)

    async with member_of_all(driver, partitions) as member:
        served = [await fetch(member, PIECE * partitions // fetches) for _ in range(fetches)]

    assert {len(piece.offsets) for pieces in served for piece in pieces.values()} == {PIECE}
    assert sorted(number for pieces in served for number in pieces) == list(range(partitions))


async def test_partitions_with_little_share_a_fetch(driver: SqliteDriver) -> None:
    partitions = 20
    await driver.admin().create_topic(TOPIC, partitions, {})
    for number in range(partitions):
        await append(driver, number, 5)

    async with member_of_all(driver, partitions) as member:
        assert len(await fetch(member, 500)) == partitions


async def test_large_batches_are_not_read_ahead_of_all_partitions(driver: SqliteDriver) -> None:
    partitions, size = 20, READ_AHEAD // 2
    await driver.admin().create_topic(TOPIC, partitions, {})
    for number in range(partitions):
        await driver.sink().append(TOPIC, number, [OutgoingMessage(bytes(size))], sequence=None)

    async with member_of_all(driver, partitions) as member:
        served = []
        for _ in range(partitions):
            pieces = await member.fetch(max_bytes=size, max_wait=10)
            served += [piece.assignment.tp.partition for piece in pieces]
            assert isinstance(member.subscription, SqliteSubscription)
            assert sum(holding.cursor.available for holding in member.subscription._holdings) <= 2

    assert sorted(number or 0 for number in served) == list(range(partitions))


async def forget_the_assignment(member: Subscriber[LogSubscription]) -> None:
    """The next fetch would return at once because of it."""
    assert isinstance(member.subscription, SqliteSubscription)
    member.subscription._fetching._bell.ended = False


async def test_a_message_after_many_empty_partitions_comes_with_the_first_fetch(driver: SqliteDriver) -> None:
    await driver.admin().create_topic(TOPIC, MANY, {})
    await append(driver, MANY - 1, 1)
    async with member_of_all(driver, MANY) as member:
        await forget_the_assignment(member)
        assert list(await fetch(member, 500)) == [MANY - 1]


async def test_rings_for_all_do_not_hide_a_partition_that_is_looked_at_late(
    driver: SqliteDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process that writes all the time makes every partition worth a look again, the first ones too."""
    await driver.admin().create_topic(TOPIC, MANY, {})
    await append(driver, MANY - 1, 1)
    async with member_of_all(driver, MANY) as member:
        await forget_the_assignment(member)
        assert isinstance(member.subscription, SqliteSubscription)
        fetching = member.subscription._fetching
        read, reads = fetching._read, 0

        async def ring_and_read(*arguments: Any) -> int:
            nonlocal reads
            reads += 1
            fetching.heard(None)
            return await read(*arguments)

        monkeypatch.setattr(fetching, "_read", ring_and_read)
        with anyio.fail_after(50):
            assert list(await fetch(member, 500)) == [MANY - 1]

        assert reads == MANY // PARTITIONS_AT_ONCE


async def test_a_fetch_that_looks_again_and_again_is_woken(
    driver: SqliteDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    await driver.admin().create_topic(TOPIC, MANY, {})
    async with member_of_all(driver, MANY) as member:
        assert isinstance(member.subscription, SqliteSubscription)
        fetching = member.subscription._fetching
        await forget_the_assignment(member)
        read = fetching._read

        async def wake_and_read(*arguments: Any) -> int:
            fetching.wake()
            return await read(*arguments)

        monkeypatch.setattr(fetching, "_read", wake_and_read)
        with anyio.fail_after(50):
            assert await fetch(member, 500) == {}

        unseen = [holding for holding in fetching._holdings if not holding.last_read]
        assert len(unseen) == MANY - PARTITIONS_AT_ONCE
