"""The promises of a state store: it reads its writes and fences stale writers."""

from __future__ import annotations

import uuid

import anyio
import pytest

from rustmq_sdk.slots import Driver, StateStore
from rustmq_sdk.testing.contracts.base import Contract
from rustmq_sdk.values import Version


class StateStoreContract(Contract):
    """Tests what :class:`~rustmq_sdk.slots.StateStore` promises."""

    @pytest.fixture
    def store(self, driver: Driver) -> StateStore:
        """A store that nobody has used yet."""
        return driver.state_store(f"contract-{uuid.uuid4().hex[:12]}")

    async def test_a_key_nobody_wrote_is_none(self, store: StateStore) -> None:
        assert await store.get("nothing") is None

    async def test_a_value_is_read_as_it_was_written(self, store: StateStore) -> None:
        for key, value in {
            "empty": b"",
            "bytes": bytes(range(256)),
            "schlüssel/☃ x": b"y",
            "large": bytes(200_000),
        }.items():
            version = await store.put(key, value, if_version=None)
            found = await store.get(key)
            assert found is not None
            assert version is not None
            assert (found.value, found.version) == (value, version)

    async def test_a_put_with_the_version_read_succeeds(self, store: StateStore) -> None:
        version = await store.put("key", b"1", if_version=None)
        for value in (b"2", b"2", b"3"):
            newer = await store.put("key", value, if_version=version)
            assert newer is not None
            assert newer != version, "every write has a version of its own"
            version = newer

        found = await store.get("key")
        assert found is not None
        assert (found.value, found.version) == (b"3", version)

    async def test_a_put_with_an_older_version_changes_nothing(self, store: StateStore) -> None:
        old = await store.put("key", b"1", if_version=None)
        await store.put("key", b"2", if_version=old)
        assert await store.put("key", b"stale", if_version=old) is None
        assert await store.put("key", b"stale", if_version=None) is None, "the key exists"
        found = await store.get("key")
        assert found is not None
        assert found.value == b"2"

    async def test_a_put_of_a_missing_key_with_a_version_changes_nothing(self, store: StateStore) -> None:
        version = await store.put("other", b"1", if_version=None)
        assert await store.put("key", b"1", if_version=version) is None
        assert await store.get("key") is None

    async def test_of_racing_writers_exactly_one_wins(self, store: StateStore) -> None:
        version: Version | None = None
        for round_ in range(5):
            won: list[Version] = []

            async def write(writer: int, seen: Version | None = version, won: list[Version] = won) -> None:
                mine = await store.put("key", b"%d" % writer, if_version=seen)
                if mine is not None:
                    won.append(mine)

            async with anyio.create_task_group() as tasks:
                for writer in range(8):
                    tasks.start_soon(write, writer)

            assert len(won) == 1, f"{len(won)} writers won round {round_}"
            version = won[0]

    async def test_a_counter_loses_no_increment(self, store: StateStore) -> None:
        async def increment() -> None:
            while True:
                found = await store.get("counter")
                value = int(found.value) if found else 0
                if await store.put("counter", b"%d" % (value + 1), if_version=found.version if found else None):
                    return

        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(increment)

        found = await store.get("counter")
        assert found is not None
        assert found.value == b"10"

    async def test_stores_of_one_name_share_and_of_two_names_do_not(self, driver: Driver) -> None:
        name = f"contract-{uuid.uuid4().hex[:12]}"
        await driver.state_store(name).put("key", b"1", if_version=None)
        found = await driver.state_store(name).get("key")
        assert found is not None
        assert await driver.state_store(name + "-other").get("key") is None
