"""What a reviewer who tried to break the promises has found: each stays found."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import anyio
import anyio.lowlevel
import pytest

import rustmq_sdk
from rustmq_sdk import AckResult, Client, Consumer, DeadLetter, RetryPolicy
from rustmq_sdk.drivers.memory import open as open_memory
from rustmq_sdk.slots import SourceRequest
from rustmq_sdk.values import CommitOutcome, Gone, TopicPartition

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

HERE = TopicPartition("t", 0)
names = count()


async def filled(client: Client, count: int) -> None:
    async with client.producer() as producer:
        await producer.send_batch("t", [str(number) for number in range(count)])


class Wrapped:
    """A memory source whose subscription is changed on the way."""

    def __init__(self, driver: Any, change: Any) -> None:
        self._source = driver.source(SourceRequest(topics=["t"], group="g", lease=30, revoke_budget=5))
        self._change = change
        self.capabilities = self._source.capabilities

    def subscribe(self, listener: Any) -> Any:
        self.listener = listener

        @asynccontextmanager
        async def entered() -> AsyncIterator[Any]:
            async with self._source.subscribe(listener) as subscription:
                self._change(subscription)
                yield subscription

        return entered()


async def test_entering_in_a_cancelled_scope_ends() -> None:
    async with Client("memory://") as client:
        with anyio.move_on_after(0):
            async with client.consumer("t", group="g"):
                raise AssertionError("never reached")


async def test_a_batch_ack_reaches_a_retry_in_the_middle_of_the_batch_after_a_restart() -> None:
    async with Client("memory://") as client:
        await filled(client, 50)
        retry = RetryPolicy(initial=100, jitter="none")
        async with client.consumer("t", group="g", retry=retry) as consumer:
            for message in await consumer.receive_batch(50):
                if message.offset == 20:
                    await message.nack()

        async with client.consumer("t", group="g") as consumer:
            batch = await consumer.receive_batch(50)
            assert (20, 2) in [(message.offset, message.attempt) for message in batch]
            assert await batch.ack(durable=True) is AckResult.DURABLE
            assert await consumer.committed_offset("t", 0) == 50


async def test_a_durable_batch_is_durable_to_its_first_message() -> None:
    async with Client("memory://") as client:
        await filled(client, 3)
        async with client.consumer("t", group="g", commit_interval=20) as consumer:
            batch = await consumer.receive_batch(3)
            await batch[-1].ack(durable=True)
            assert await batch.ack(durable=True) is AckResult.DURABLE
            assert await consumer.committed_offset("t", 0) == 3


async def test_a_durable_batch_does_not_wait_for_what_was_nacked_out_of_it() -> None:
    async with Client("memory://") as client:
        await filled(client, 3)
        async with client.consumer("t", group="g", retry=RetryPolicy(initial=100)) as consumer:
            batch = await consumer.receive_batch(3)
            await batch[-1].nack()
            assert await batch.ack(durable=True) is AckResult.DURABLE


async def test_each_letter_of_a_refused_batch_is_written_once() -> None:
    calls = 0
    written: list[int | None] = []

    async def put(letters: Sequence[DeadLetter]) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            await anyio.sleep(0.3)

        if len(letters) > 1:
            raise ValueError("not so many")

        if calls == 3:
            raise OSError("for a moment")

        written.extend(letter.offset for letter in letters)

    async with Client("memory://") as client:
        await filled(client, 4)
        async with client.consumer("t", group="g", dead_letters=put) as consumer:
            for message in await consumer.receive_batch(4):
                await message.reject()

            await anyio.sleep(30)
            await consumer.commit()
            assert sorted(written, key=str) == [0, 1, 2, 3]
            assert await consumer.committed_offset("t", 0) == 4
            assert consumer.statistics().acked == 0


async def test_letters_of_partitions_that_were_lost_do_not_add_up() -> None:
    async def put(letters: Sequence[DeadLetter]) -> None:
        await anyio.sleep_forever()

    async with Client("memory://") as client:
        await filled(client, 10)
        options: Any = {"max_in_flight": 10, "prefetch": 10, "close_timeout": 2, "dead_letters": put}
        async with client.consumer("t", group="g", **options) as consumer:
            for _ in range(20):
                for _ in range(10):
                    await (await consumer.receive()).reject()

                await anyio.lowlevel.checkpoint()
                await consumer.seek("t", 0, 0)


async def test_records_before_a_lost_range_are_delivered() -> None:
    def lose_five(subscription: Any) -> None:
        fetch = subscription.fetch

        async def fetched(*arguments: Any, **limits: Any) -> Any:
            pieces = await fetch(*arguments, **limits)
            for piece in pieces:
                if piece.offsets and piece.offsets[0] == 0:
                    piece.offsets = [offset for offset in piece.offsets if offset != 5]
                    piece.records = [record for record in piece.records if record[3] != 5]
                    piece.gone = (Gone(HERE, 5, 6, "damaged"),)

            return pieces

        subscription.fetch = fetched

    letters: list[DeadLetter] = []
    url = f"memory://attack-{next(names)}"
    async with open_memory(url) as driver, Client(url) as client:
        await filled(client, 10)
        source = Wrapped(driver, lose_five)
        async with Consumer(source, group="g", on_lost="dead_letter", dead_letters=letters.extend) as consumer:
            handled = [(await consumer.receive()).offset for _ in range(9)]
            assert handled == [0, 1, 2, 3, 4, 6, 7, 8, 9]
            await anyio.sleep(1)
            assert [letter.offset for letter in letters] == [5]


async def test_of_a_lost_range_that_begins_among_what_was_delivered_the_rest_is_told() -> None:
    def lose_five_to_eight(subscription: Any) -> None:
        fetch = subscription.fetch

        async def fetched(*arguments: Any, **limits: Any) -> Any:
            pieces = await fetch(*arguments, **limits)
            for piece in pieces:
                if piece.offsets and piece.offsets[0] == 0:
                    piece.offsets, piece.records = list(range(5)), piece.records[:5]
                    piece.next_offset = 5
                    again.append(piece.records)
                elif piece.offsets and piece.offsets[0] == 5:
                    piece.offsets, piece.records = [9], piece.records[4:5]
                    piece.gone = (Gone(HERE, 3, 9, "damaged"),)

            return pieces

        subscription.fetch = fetched

    again: list[Any] = []
    letters: list[DeadLetter] = []
    url = f"memory://attack-{next(names)}"
    async with open_memory(url) as driver, Client(url) as client:
        await filled(client, 10)
        source = Wrapped(driver, lose_five_to_eight)
        async with Consumer(
            source, group="g", on_lost="dead_letter", dead_letters=letters.extend, prefetch=5
        ) as consumer:
            handled = [(await consumer.receive()).offset for _ in range(6)]
            assert handled == [0, 1, 2, 3, 4, 9]
            await anyio.sleep(1)
            assert [letter.offset for letter in letters] == [5]
            assert "offsets 5 to 8 are gone" in letters[0].reason
            assert consumer.statistics().lost == 4


async def test_a_read_that_brings_less_than_was_asked_for_is_made_again() -> None:
    asked: list[int] = []

    def read_one(subscription: Any) -> None:
        read = subscription.read

        async def first_only(assignment: Any, offsets: Any) -> Any:
            asked.append(len(offsets))
            return await read(assignment, offsets[:1])

        subscription.read = first_only

    url = f"memory://attack-{next(names)}"
    async with open_memory(url) as driver, Client(url) as client:
        await filled(client, 3)
        async with Consumer(Wrapped(driver, read_one), group="g", cache_messages=0) as consumer:
            for message in await consumer.receive_batch(3):
                await message.nack(delay=0)

            again = [await consumer.receive(30) for _ in range(3)]
            assert sorted((message.offset, message.attempt) for message in again) == [(0, 2), (1, 2), (2, 2)]
            assert asked == [3, 2, 1]


async def test_a_commit_that_the_broker_put_off_is_not_confirmed() -> None:
    answers = [CommitOutcome.RETRY, CommitOutcome.RETRY]

    def put_off(subscription: Any) -> None:
        commit = subscription.commit

        async def committed(checkpoints: Any) -> Any:
            if answers:
                return dict.fromkeys(checkpoints, answers.pop())

            return await commit(checkpoints)

        subscription.commit = committed

    url = f"memory://attack-{next(names)}"
    async with open_memory(url) as driver, Client(url) as client:
        await filled(client, 1)
        async with Consumer(Wrapped(driver, put_off), group="g", auto_commit=False) as consumer:
            await (await consumer.receive()).ack()
            await consumer.commit()
            assert not answers
            assert await consumer.committed_offset("t", 0) == 1


async def test_a_receiver_gets_its_message_beside_one_that_waits_for_a_full_batch() -> None:
    got: list[rustmq_sdk.Message] = []
    async with Client("memory://") as client:
        await client.create_topic("t")
        async with client.consumer("t", group="g") as consumer, anyio.create_task_group() as group:

            async def full() -> None:
                await consumer.receive_batch(100, max_wait=1000)

            async def one() -> None:
                got.append(await consumer.receive())

            # The batch waits in front, so the wake for the only message is for it.
            group.start_soon(full)
            await anyio.wait_all_tasks_blocked()
            group.start_soon(one)
            await anyio.wait_all_tasks_blocked()
            await filled(client, 1)
            await anyio.sleep(1)
            group.cancel_scope.cancel()

    assert len(got) == 1


async def test_a_full_checkpoint_does_not_wait_for_a_commit_that_waits_for_it() -> None:
    async with Client("memory://?checkpoint_room=10") as client:
        await filled(client, 400)
        options: Any = {"auto_commit": False, "prefetch": 20, "retry": RetryPolicy(initial=5, jitter="none")}
        async with client.consumer("t", group="g", **options) as consumer:
            for _ in range(200):
                message = await consumer.receive(timeout=60)
                assert message.offset is not None
                if message.offset % 3 == 0 and message.attempt == 1:
                    await message.nack()
                else:
                    await message.ack()

                if message.offset == 30:
                    await consumer.commit()


async def test_without_any_room_a_nack_does_not_stop_its_partition() -> None:
    async with Client("memory://?checkpoint_room=0") as client:
        await filled(client, 400)
        options: Any = {"prefetch": 20, "retry": RetryPolicy(initial=3600, max_delay=3600, jitter="none")}
        async with client.consumer("t", group="g", **options) as consumer:
            for number in range(400):
                message = await consumer.receive(timeout=60)
                if number == 5:
                    await message.nack()
                else:
                    await message.ack()

                if number == 8:
                    await consumer.commit()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_cancellation_that_comes_from_nowhere_ends_no_task_in_silence(anyio_backend: str) -> None:
    def stray(subscription: Any) -> None:
        async def commit(checkpoints: Any) -> Any:
            raise asyncio.CancelledError

        subscription.commit = commit

    url = f"memory://attack-{next(names)}"
    async with open_memory(url) as driver, Client(url) as client:
        await filled(client, 1)
        async with Consumer(Wrapped(driver, stray), group="g", close_timeout=2) as consumer:
            await (await consumer.receive()).ack()
            with pytest.raises(rustmq_sdk.PermanentDriverError, match="cancelled by somebody else"):
                await consumer.receive(timeout=60)


async def test_a_commit_does_not_return_for_a_partition_that_was_revoked_before_it_was_written() -> None:
    ours: set[Any] = set()

    def never(subscription: Any) -> None:
        async def commit(checkpoints: Any) -> Any:
            ours.update(checkpoints)
            return dict.fromkeys(checkpoints, CommitOutcome.RETRY)

        subscription.commit = commit

    url = f"memory://attack-{next(names)}"
    async with open_memory(url) as driver, Client(url) as client:
        await filled(client, 1)
        source = Wrapped(driver, never)
        async with Consumer(source, group="g") as consumer, anyio.create_task_group() as group:
            await (await consumer.receive()).ack()

            async def revoke() -> None:
                await anyio.sleep(0.5)
                await source.listener.revoking(list(ours), 1.0)
                await anyio.sleep(2)
                await source.listener.lost(list(ours))

            group.start_soon(revoke)
            with pytest.raises(rustmq_sdk.StalePartition):
                await consumer.commit()
