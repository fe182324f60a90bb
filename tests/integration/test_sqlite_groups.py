"""Members of one group in several processes on one file: they share, hand over, die and are fenced."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Collection
from pathlib import Path
from typing import Any

import anyio
import apsw
import pytest

from rustmq_sdk.drivers import sqlite
from rustmq_sdk.drivers.sqlite import SqliteDriver
from rustmq_sdk.drivers.sqlite.claims import commit
from rustmq_sdk.drivers.sqlite.group import view
from rustmq_sdk.drivers.sqlite.member_lock import lock_path
from rustmq_sdk.drivers.sqlite.membership import Membership
from rustmq_sdk.drivers.sqlite.schema import ADDED
from rustmq_sdk.drivers.sqlite.subscription import SqliteSubscription
from rustmq_sdk.drivers.sqlite.transaction import Transaction
from rustmq_sdk.errors import PermanentDriverError
from rustmq_sdk.slots import LogSubscription, SourceRequest
from rustmq_sdk.testing.contracts.subscriber import Subscriber, log_member
from rustmq_sdk.testing.listener import RecordingListener
from rustmq_sdk.values import Assignment, Checkpoint, OutgoingMessage
from tests.integration.others import GROUP, PATIENCE, TOPIC, TPS, another, member_of, reasons, until

STRANGER = b"stranger" * 2


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


@pytest.fixture
async def driver(path: Path) -> AsyncIterator[SqliteDriver]:
    async with sqlite.open(f"sqlite:///{path}") as driver:
        await driver.admin().create_topic(TOPIC, len(TPS), {})
        yield driver


async def test_processes_share_the_partitions_and_leave_them_to_each_other(driver: SqliteDriver, path: Path) -> None:
    async with member_of(driver) as member:
        await member.owns(TPS)
        with another(path, lease=10) as other:
            await member.listener.until(lambda: len(member.listener.assignments) == 2, PATIENCE)
            rest = sorted(tp.partition or 0 for tp in TPS if tp not in member.listener.assignments)
            await other.owns(rest)
            assert await other.ask("commit 7") == "committed"
            other.say("leave")
            await member.owns(TPS)
            committed = await member.subscription.committed(TPS)

        assert [tp.partition for tp, checkpoint in committed.items() if checkpoint == Checkpoint(7)] == rest


async def test_a_waiting_fetch_hears_of_another_process(driver: SqliteDriver, path: Path) -> None:
    request = SourceRequest(topics=[TOPIC], group=None, lease=10, revoke_budget=1.0)
    with another(path, lease=10) as other:
        async with log_member(driver, request, RecordingListener(committed=False), PATIENCE) as reader:
            await reader.owns(TPS)
            await reader.fetch()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(reader.fetch_until, lambda: reader.payloads() == [b"theirs"])
                await anyio.wait_all_tasks_blocked()
                assert await other.ask("send theirs") == "sent"


async def test_what_was_read_before_a_revocation_is_not_handed_out_after_it(
    driver: SqliteDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for tp in TPS:
        await driver.sink().append(TOPIC, tp.partition or 0, [OutgoingMessage(b"ours?")], sequence=None)

    async with member_of(driver) as member:
        await member.owns(TPS)
        assert isinstance(member.subscription, SqliteSubscription)
        fetching = member.subscription._fetching
        read, was_read, shared = fetching._read, anyio.Event(), anyio.Event()

        async def read_and_wait(*arguments: Any) -> int:
            looked_at = await read(*arguments)
            was_read.set()
            await shared.wait()
            return looked_at

        monkeypatch.setattr(fetching, "_read", read_and_wait)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(member.fetch)
            await was_read.wait()
            async with member_of(driver):
                await member.listener.until(lambda: len(member.listener.assignments) == 2, PATIENCE)
                kept = set(member.listener.assignments)

            shared.set()

        assert {received.tp for received in member.received} == kept


@pytest.mark.slow
async def test_a_blocked_loop_keeps_its_membership(driver: SqliteDriver, path: Path) -> None:
    with another(path, lease=1.0) as other:
        await other.owns([0, 1, 2, 3])
        other.say("block 3")
        async with member_of(driver, lease=1.0) as member:
            assert await anyio.to_thread.run_sync(other.hear) == "unblocked"
            assert "expired" not in (await other.ask("why")).split()
            # What was overdue for release is taken, which is the fair share, and nothing else.
            await member.listener.until(lambda: len(member.listener.assignments) == 2, PATIENCE)
            assert "expired_beat" not in reasons(member)
            await other.owns(sorted(tp.partition or 0 for tp in TPS if tp not in member.listener.assignments))
            assert await other.ask("commit 5") == "committed"


@pytest.mark.slow
async def test_an_owner_that_does_not_release_in_time_is_overtaken(driver: SqliteDriver) -> None:
    async def never(assignments: object, budget: float) -> None:
        await anyio.sleep_forever()

    async with member_of(driver, lease=1.0, on_revoking=never) as slow:
        await slow.owns(TPS)
        before = dict(slow.listener.assignments)
        async with member_of(driver, lease=1.0) as member:
            await member.listener.until(lambda: len(member.listener.assignments) == 2, PATIENCE)
            assert reasons(member)[-1] == "overdue"
            moved = list(member.listener.assignments)
            late = {before[tp]: Checkpoint(9) for tp in moved}
            outcomes = await slow.subscription.commit(late)
            assert {outcome.value for outcome in outcomes.values()} == {"fenced"}
            assert await member.subscription.committed(moved) == dict.fromkeys(moved)


async def test_a_member_that_was_expired_joins_again_under_another_name(driver: SqliteDriver) -> None:
    async with member_of(driver) as member:
        await member.owns(TPS)
        before = dict(member.listener.assignments)
        file = driver._file()
        await file.write("source", "expire", lambda transaction: transaction.execute("DELETE FROM member"))
        outcomes = await member.subscription.commit({before[TPS[0]]: Checkpoint(1)})
        file.broadcast.tell_here(None)
        await member.listener.until(lambda: len(member.listener.gone) == len(TPS), PATIENCE)
        await member.owns(TPS)
        assert all(member.assignment(tp) is not before[tp] for tp in TPS)
        assert [call.name for call in member.listener.calls] == ["assigned", "lost", "assigned"]
        assert len(outcomes) == 1


async def test_a_claim_whose_answer_was_lost_is_made_again(driver: SqliteDriver) -> None:
    async with member_of(driver) as member:
        await member.owns(TPS)
        before = member.listener.calls[-1].generation
        assert before is not None

        def claim(transaction: Transaction) -> None:
            transaction.execute("UPDATE claim SET epoch = epoch + 1 WHERE partition = 1")
            transaction.changed.add(("group", GROUP))

        await driver._file().write("source", "claim", claim)
        await member.listener.until(lambda: member.listener.calls[-1].generation == before + 2, PATIENCE)
        await member.owns(TPS)


async def test_nothing_is_delivered_while_it_is_given_up(driver: SqliteDriver) -> None:
    delivered: list[object] = []

    async def fetch(assignments: Collection[Assignment], budget: float) -> None:
        delivered.extend(await first.subscription.fetch(assignments, max_messages=9, max_bytes=999, max_wait=0.0))

    for tp in TPS:
        await driver.sink().append(TOPIC, tp.partition or 0, [OutgoingMessage(b"x")], sequence=None)

    async with member_of(driver, on_revoking=fetch) as first:
        await first.owns(TPS)
        async with member_of(driver) as second:
            await second.listener.until(lambda: len(second.listener.assignments) == 2, PATIENCE)

    assert not delivered


async def test_after_a_silence_nothing_is_delivered_that_became_somebody_elses(driver: SqliteDriver) -> None:
    await driver.sink().append(TOPIC, 0, [OutgoingMessage(b"x")], sequence=None)
    async with member_of(driver) as member:
        await member.owns(TPS)
        driver._file().watcher.stop()
        subscription = member.subscription
        assert isinstance(subscription, SqliteSubscription)
        ours = subscription._membership._ours
        assert isinstance(ours, Membership)

        def take(transaction: Transaction) -> None:
            transaction.execute("UPDATE claim SET owner = x'00', epoch = epoch + 1")

        await driver._file().write("source", "take", take)
        ours._heartbeat._confirmed -= 6  # seconds, of a lease of 10
        assert not await member.fetch()
        await member.listener.until(lambda: len(member.listener.gone) == len(TPS), PATIENCE)


async def test_a_commit_of_an_earlier_epoch_changes_nothing(driver: SqliteDriver) -> None:
    async with member_of(driver) as member:
        await member.owns(TPS)
        assert isinstance(member.subscription, SqliteSubscription)
        me = member.subscription._membership.member
        file = driver._file()
        for epoch, done in ((1, True), (0, False), (2, False)):
            rows = [(1, epoch, Checkpoint(epoch + 5))]
            assert await file.write("source", "commit", commit, GROUP, me, rows) == [done]

        assert (await member.subscription.committed([TPS[0]]))[TPS[0]] == Checkpoint(6)


async def test_a_deleted_topic_is_lost_and_comes_back_when_it_is_created_again(driver: SqliteDriver) -> None:
    async with member_of(driver) as member:
        await member.owns(TPS)
        await driver.admin().delete_topic(TOPIC)
        await member.owns([])
        await driver.sink().append(TOPIC, 0, [OutgoingMessage(b"new")], sequence=None)
        await member.owns(TPS[:1])
        await member.collect(1)
        assert member.payloads() == [b"new"]


def epochs_of(member: Subscriber[LogSubscription]) -> set[int]:
    assert isinstance(member.subscription, SqliteSubscription)
    return {holding.epoch for holding in member.subscription._holdings}


async def test_epochs_go_on_when_a_topic_is_deleted_and_created_again(driver: SqliteDriver) -> None:
    """Fences are made of them, and a store that has seen a higher one would refuse all that is done later."""
    epochs = []
    for _ in range(2):
        async with member_of(driver) as member:
            await member.owns(TPS)
            epochs.append(epochs_of(member))

    await driver.admin().delete_topic(TOPIC)
    await driver.admin().create_topic(TOPIC, len(TPS), {})
    async with member_of(driver) as member:
        await member.owns(TPS)
        epochs.append(epochs_of(member))
        await driver.admin().delete_topic(TOPIC)
        await member.owns([])
        await driver.admin().create_topic(TOPIC, len(TPS), {})
        await member.owns(TPS)
        epochs.append(epochs_of(member))

    assert epochs == [{1}, {2}, {3}, {4}]


# Why partitions come and go


async def test_members_are_told_why(driver: SqliteDriver) -> None:
    async with member_of(driver) as first:
        await first.owns(TPS)
        async with member_of(driver) as second:
            await second.listener.until(lambda: len(second.listener.assignments) == 2, PATIENCE)

        await first.owns(TPS)
        await driver.admin().delete_topic(TOPIC)
        await first.owns([])
        await driver.admin().create_topic(TOPIC, 2, {})
        await first.owns(TPS[:2])

    assert reasons(first) == ["joined", "moved", "left", "topics_changed", "topics_changed"]
    assert reasons(second)[0] == "moved"


# Members of other releases


def as_another_release(driver: SqliteDriver, *, protocol: int, lock: int | None = None) -> Awaitable[None]:
    """Another release's member joins, by its row."""

    def join(transaction: Transaction) -> None:
        sql = "INSERT INTO member (consumer_group, id, topics, lock, protocol) VALUES (?, ?, ?, ?, ?)"
        topics = f'["{TOPIC}"]' if protocol == 1 else "something else"
        transaction.execute(sql, GROUP, STRANGER, topics, lock, protocol)
        transaction.changed.add(("group", GROUP))

    return driver._file().write("source", "join", join)


async def test_a_member_of_a_later_release_is_not_joined(driver: SqliteDriver) -> None:
    await as_another_release(driver, protocol=2)
    async with member_of(driver) as member:
        with pytest.raises(PermanentDriverError, match="later release: it shares partitions by protocol 2"):
            await member.fetch_until(lambda: False)

        assert not member.listener.calls


async def test_a_running_member_does_not_go_on_beside_one_of_a_later_release(driver: SqliteDriver) -> None:
    async with member_of(driver) as member:
        await member.owns(TPS)
        await as_another_release(driver, protocol=2)
        with pytest.raises(PermanentDriverError, match="Upgrade rustmq-sdk"):
            await member.fetch_until(lambda: False)


async def test_a_member_of_a_later_release_that_has_ended_is_expired(driver: SqliteDriver, path: Path) -> None:
    file = lock_path(path, STRANGER)
    file.touch()
    await as_another_release(driver, protocol=2, lock=file.stat().st_ino)
    async with member_of(driver) as member:
        await member.owns(TPS)
        await until(lambda: not file.exists())


async def test_a_member_of_an_earlier_release_has_no_lock_and_is_spared(driver: SqliteDriver) -> None:
    def join(transaction: Transaction) -> None:
        sql = "INSERT INTO member (consumer_group, id, topics) VALUES (?, ?, ?)"
        transaction.execute(sql, GROUP, STRANGER, f'["{TOPIC}"]')

    await driver._file().write("source", "join", join)
    async with member_of(driver) as member:
        await member.listener.until(lambda: len(member.listener.assignments) == 2, PATIENCE)
        driver._file().broadcast.tell_here(None)
        await driver.sink().append(TOPIC, 0, [OutgoingMessage(b"x")], sequence=None)
        assert STRANGER in (await driver._file().read("source", "look", view, GROUP)).members


async def test_a_file_of_an_earlier_release_gets_what_it_lacks(path: Path) -> None:
    async with sqlite.open(f"sqlite:///{path}") as driver:
        await driver.admin().create_topic(TOPIC, len(TPS), {})

    connection = apsw.Connection(str(path))
    for table, column, _ in ADDED:
        connection.execute(f"ALTER TABLE {table} DROP COLUMN {column}")

    connection.close()
    async with sqlite.open(f"sqlite:///{path}") as driver, member_of(driver) as member:
        await member.owns(TPS)
