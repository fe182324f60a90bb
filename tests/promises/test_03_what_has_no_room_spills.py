"""Promise 3 where the broker has little room: with a state store, what does not fit is remembered there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from random import Random
from typing import Any

import anyio
import pytest

from rustmq_sdk import Client, ConfigurationError
from rustmq_sdk._core.checkpoint import Remembered, encode
from rustmq_sdk.errors import TransientDriverError
from rustmq_sdk.slots import StateStore
from rustmq_sdk.values import Version, Versioned
from tests.promises.stage import Stage, ack, passes, take, take_all

pytestmark = pytest.mark.virtual_time

MESSAGES = 400
RAGGED = sorted({offset for offset in range(1, MESSAGES) if Random(offset).random() < 0.5})
"""A half of them that no encoding makes small."""


class Store:
    """A state store, and what a test does to it.

    Attributes:
        down: every call fails.
        hangs: no call is answered.
        overtaken: before each write somebody else writes.
    """

    def __init__(self) -> None:
        self.values: dict[str, tuple[bytes, int]] = {}
        self.writes = 0
        self.down = False
        self.hangs = False
        self.overtaken = False

    async def get(self, key: str) -> Versioned | None:
        await self._check()
        found = self.values.get(key)
        return None if found is None else Versioned(found[0], Version(b"%d" % found[1]))

    async def put(self, key: str, value: bytes, *, if_version: Version | None) -> Version | None:
        await self._check()
        _, number = self.values.get(key, (b"", 0))
        if self.overtaken:
            number += 1
            self.values[key] = (b"somebody else's", number)

        if if_version != (Version(b"%d" % number) if number else None):
            return None

        self.values[key] = (value, number + 1)
        self.writes += 1
        return Version(b"%d" % (number + 1))

    async def _check(self) -> None:
        if self.hangs:
            await anyio.sleep_forever()

        if self.down:
            raise TransientDriverError("it is down", slot="state", operation="put")


@pytest.fixture
async def small() -> AsyncIterator[Stage]:
    stage = Stage(checkpoint_room=30)
    stage.send(MESSAGES)
    yield stage
    stage.close()


async def settle_half(stage: Stage, store: StateStore) -> set[int]:
    """Acks a ragged half; answers which."""
    async with stage.consumer(prefetch=MESSAGES, state_store=store) as consumer:
        messages = await take(consumer, MESSAGES)
        await ack(*(messages[offset] for offset in RAGGED))
        await passes(5)
        assert consumer.statistics().uncommitted == 0

    return set(RAGGED)


async def delivered(stage: Stage, store: StateStore | None) -> set[Any]:
    async with stage.consumer(prefetch=MESSAGES, state_store=store) as consumer:
        return {message.offset for message in await take_all(consumer)}


async def test_what_was_acked_does_not_run_again_however_little_room_there_is(small: Stage) -> None:
    store = Store()
    acked = await settle_half(small, store)
    checkpoint = small.checkpoint()
    assert checkpoint is not None
    assert len(checkpoint.extra) <= 30
    assert await delivered(small, store) == set(range(MESSAGES)) - acked


async def test_the_store_of_another_client_will_do(small: Stage) -> None:
    async with Client("memory://elsewhere") as elsewhere:
        store = elsewhere.state_store("checkpoints")
        acked = await settle_half(small, store)
        assert await delivered(small, store) == set(range(MESSAGES)) - acked


async def test_attempts_spill_as_well(small: Stage) -> None:
    store = Store()
    async with small.consumer(prefetch=MESSAGES, state_store=store) as consumer:
        for message in await take(consumer, MESSAGES):
            await message.nack(delay=1000)

        await passes(5)

    async with small.consumer(prefetch=MESSAGES, state_store=store) as consumer:
        assert {message.attempt for message in await take(consumer, MESSAGES)} == {2}


async def test_intake_goes_on_where_a_full_checkpoint_would_stop_it(small: Stage) -> None:
    store = Store()
    small.send(2000)
    async with small.consumer(prefetch=100, max_in_flight=200, state_store=store) as consumer:
        stuck = await consumer.receive(5)
        rng = Random(2)
        count = 0
        while count < 1500:
            message = await consumer.receive(60)
            count += 1
            if rng.random() < 0.9:
                await message.ack()
            else:
                await passes(0.1)
                await message.ack()

        await stuck.ack()


async def test_without_the_store_what_fits_is_remembered(small: Stage) -> None:
    store = Store()
    acked = await settle_half(small, store)
    store.values.clear()
    again = await delivered(small, store)
    assert set(range(MESSAGES)) - acked <= again
    assert again < set(range(MESSAGES))


@pytest.mark.parametrize("trouble", ["down", "overtaken", "hangs"])
async def test_a_store_in_trouble_costs_duplicates_and_nothing_else(small: Stage, trouble: str) -> None:
    store = Store()
    setattr(store, trouble, True)
    async with small.consumer(prefetch=MESSAGES, state_store=store) as consumer:
        messages = await take(consumer, MESSAGES)
        await ack(*(messages[offset] for offset in RAGGED))
        await passes(8)
        assert small.checkpoint() is not None

    setattr(store, trouble, False)
    again = await delivered(small, store)
    assert set(range(MESSAGES)) - set(RAGGED) <= again < set(range(MESSAGES))


async def test_a_store_that_hangs_costs_no_position(small: Stage) -> None:
    small.create(2, "u")
    small.send(3, topic="u")
    store = Store()
    store.hangs = True
    async with small.consumer("t", "u", prefetch=MESSAGES + 10, state_store=store) as consumer:
        messages = await take(consumer, MESSAGES + 3)
        await ack(*(message for message in messages if message.topic == "u" or message.offset in RAGGED))

    assert small.committed(topic="u") == 3
    assert small.checkpoint() is not None


async def test_a_commit_that_fails_leaves_what_the_last_one_named(small: Stage) -> None:
    store = Store()
    async with small.consumer(prefetch=MESSAGES, state_store=store) as consumer:
        messages = await take(consumer, MESSAGES)
        before, after = RAGGED[:150], RAGGED[150:]
        await ack(*(messages[offset] for offset in before))
        await passes(5)
        small.plan.breaks("source.commit")
        await ack(*(messages[offset] for offset in after))
        await passes(5)
        assert store.writes > 1

    small.plan.heals()
    assert await delivered(small, store) == set(range(MESSAGES)) - set(before)


async def test_so_does_one_that_fails_after_a_restart(small: Stage) -> None:
    store = Store()
    acked = await settle_half(small, store)
    async with small.consumer(prefetch=MESSAGES, state_store=store) as consumer:
        small.plan.breaks("source.commit")
        left = await take(consumer, MESSAGES - len(acked))
        await ack(*(message for message in left[1:] if Random(message.offset).random() < 0.7))
        await passes(5)
        assert store.writes > 1

    small.plan.heals()
    assert await delivered(small, store) == set(range(MESSAGES)) - acked


async def test_a_store_that_hangs_leaves_the_last_commit_its_time(small: Stage) -> None:
    store = Store()
    async with small.consumer(prefetch=MESSAGES, state_store=store, commit_interval=3600) as consumer:
        messages = await take(consumer, MESSAGES)
        await ack(*(messages[offset] for offset in RAGGED))
        store.hangs = True
        start = anyio.current_time()

    assert anyio.current_time() - start < 2
    assert small.committed() == 0, "what fits was written"


async def test_a_commit_that_is_tried_again_does_not_write_its_spill_again(small: Stage) -> None:
    store = Store()
    async with small.consumer(prefetch=MESSAGES, state_store=store) as consumer:
        messages = await take(consumer, MESSAGES)
        small.plan.breaks("source.commit")
        await ack(*(messages[offset] for offset in RAGGED))
        await passes(5)
        assert store.writes == 1
        small.plan.heals()


async def test_what_another_checkpoint_has_spilled_is_not_believed(small: Stage) -> None:
    store = Store()
    acked = await settle_half(small, store)
    everything = encode(0, Remembered([(1, MESSAGES)]), None)[0]
    store.values = {key: (everything, version) for key, (_, version) in store.values.items()}
    assert set(range(MESSAGES)) - acked <= await delivered(small, store)


async def test_what_has_not_changed_is_not_written_again(small: Stage) -> None:
    store = Store()
    async with small.consumer(prefetch=MESSAGES, state_store=store) as consumer:
        messages = await take(consumer, MESSAGES)
        await ack(*(messages[offset] for offset in RAGGED))
        await passes(5)
        writes = store.writes
        for _ in range(5):
            await consumer.commit()

        assert store.writes == writes == 1


async def test_what_fits_does_not_spill(small: Stage) -> None:
    store = Store()
    async with small.consumer(prefetch=MESSAGES, state_store=store) as consumer:
        await ack(*(await take(consumer, MESSAGES))[1:])
        await passes(5)

    assert store.writes == 0


async def test_something_else_than_a_store_is_refused() -> None:
    async with Client("memory://") as client:
        with pytest.raises(ConfigurationError, match="state_store"):
            client.consumer("t", group="g", state_store="checkpoints")
