"""What members of a group write about themselves and each other, where it goes wrong half way or comes late.

It is one process and one loop that decides nothing: one loop will do.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from pathlib import Path
from typing import Any

import apsw
import pytest

from rustmq_sdk._bell import FetchBell
from rustmq_sdk.drivers import sqlite
from rustmq_sdk.drivers.sqlite import SqliteDriver, claims
from rustmq_sdk.drivers.sqlite.group import Claim, View, view
from rustmq_sdk.drivers.sqlite.holdings import Holdings
from rustmq_sdk.drivers.sqlite.membership import Membership
from rustmq_sdk.drivers.sqlite.transaction import Transaction
from rustmq_sdk.slots import SourceRequest
from rustmq_sdk.testing.contracts.subscriber import log_member
from rustmq_sdk.testing.listener import RecordingListener
from rustmq_sdk.values import Assignment, TopicPartition
from tests.integration.others import GROUP, PATIENCE, TOPIC, TPS, member_of

A, B = b"a" * 16, b"b" * 16


@pytest.fixture(scope="class")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


@pytest.fixture
async def driver(path: Path) -> AsyncIterator[SqliteDriver]:
    async with sqlite.open(f"sqlite:///{path}") as driver:
        await driver.admin().create_topic(TOPIC, len(TPS), {})
        yield driver


class Group:
    """As its members change it, one call a transaction."""

    def __init__(self, driver: SqliteDriver) -> None:
        self._file = driver._file()

    async def now(self) -> View:
        return await self._file.read("source", "look", view, GROUP)

    async def owners(self) -> list[bytes | None]:
        return [claim.owner for _, claim in sorted((await self.now()).claims.items())]

    async def join(self, member: bytes) -> None:
        await self._file.write("source", "join", claims.join, GROUP, member, [TOPIC], log=self._file.path)

    async def step(self, member: bytes, **given: Any) -> claims.Stepped:
        return await self._file.write("source", "rebalance", claims.step, GROUP, member, **{"held": {}} | given)

    async def write(self, change: Any, *args: Any, **given: Any) -> None:
        await self._file.write("source", "change", change, GROUP, *args, **given)


@pytest.fixture
async def group(driver: SqliteDriver) -> Group:
    """A has all partitions; B has joined as well."""
    group = Group(driver)
    await group.join(A)
    await group.step(A)
    await group.join(B)
    return group


async def test_who_has_beaten_since_he_was_seen_silent_is_spared(group: Group) -> None:
    seen = (await group.now()).members[A].beat
    await group.write(claims.beat, A)
    stepped = await group.step(B, silent={A: seen})
    assert not stepped.expired
    assert await group.owners() == [A] * 4
    stepped = await group.step(B, silent={A: seen + 1})
    assert stepped.expired == {A}
    assert [each.reason for each in stepped.claimed] == ["expired_beat"] * 4
    assert await group.owners() == [B] * 4


@pytest.mark.parametrize("owner", [A, None])
async def test_a_release_that_comes_late_frees_no_later_claim(group: Group, owner: bytes | None) -> None:
    held = {partition: claim.epoch for partition, claim in (await group.now()).claims.items()}
    await group.write(claims.release, A, held)
    await group.step(A)  # two of them, since B is there
    after = await group.owners()
    assert after.count(A) == after.count(None) == 2
    await group.write(claims.release, owner, held)
    assert await group.owners() == after


async def test_a_release_of_what_is_somebody_elses_frees_nothing(group: Group) -> None:
    held = {partition: claim.epoch for partition, claim in (await group.now()).claims.items()}
    await group.write(claims.release, B, held)
    assert await group.owners() == [A] * 4


async def test_nothing_is_given_up_for_a_member_that_has_left(group: Group) -> None:
    async def wanting() -> list[bytes | None]:
        return [claim.wanted_by for claim in (await group.now()).claims.values()]

    await group.step(B)
    assert (await wanting()).count(B) == 2
    await group.write(claims.leave, B)
    assert await wanting() == [None] * 4


async def test_who_waits_for_a_release_counts_from_when_its_owner_got_the_partition(driver: SqliteDriver) -> None:
    """It was claimed anew meanwhile: by somebody who has not been asked for long."""
    request = SourceRequest(topics=[TOPIC], group=GROUP, lease=10.0, revoke_budget=1.0)
    ours = Membership(
        driver._file(), request, RecordingListener(), Holdings(check_crcs=True), FetchBell(), lambda: None
    )
    ours.member = B
    allowed = request.revoke_budget + request.lease / 2

    def overdue(epoch: int, now: float) -> dict[int, int]:
        return ours._overdue(View({}, {1: Claim(A, epoch, B)}, {}), now)

    assert overdue(5, 0.0) == {}
    assert overdue(6, allowed - 0.5) == {}
    assert overdue(6, allowed) == {}
    assert overdue(6, allowed - 0.5 + allowed) == {1: 6}


class Refusing(RecordingListener):
    """Does not want what it is given."""

    async def assigned(
        self, partitions: Collection[TopicPartition], generation: int | None, *, reason: str = "assigned"
    ) -> Mapping[Assignment, int | None]:
        raise ValueError("not today")


async def test_partitions_that_the_runtime_cannot_begin_with_are_free_for_others(driver: SqliteDriver) -> None:
    request = SourceRequest(topics=[TOPIC], group=GROUP, lease=1000, revoke_budget=1.0)
    async with log_member(driver, request, Refusing(), PATIENCE) as member:
        with pytest.raises(ValueError, match="not today"):
            await member.fetch(max_wait=PATIENCE)

        assert await Group(driver).owners() == [None] * 4
        async with member_of(driver, lease=1000) as other:
            await other.listener.until(lambda: len(other.listener.assignments) == 2, PATIENCE)


async def test_who_could_not_write_a_release_is_not_revoked_twice(
    driver: SqliteDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = claims.release
    refused: list[Any] = []

    def release(transaction: Transaction, *args: Any, **given: Any) -> None:
        if len(refused) < 2:
            refused.append(args)
            raise apsw.FullError("database or disk is full")

        real(transaction, *args, **given)

    monkeypatch.setattr(claims, "release", release)
    async with member_of(driver, lease=2) as first:
        await first.owns(TPS)
        async with member_of(driver, lease=2) as second:
            await second.listener.until(lambda: len(second.listener.assignments) == 2, PATIENCE)

    assert len(refused) == 2
    assert [call.name for call in first.listener.calls] == ["assigned", "revoking", "lost"]
