"""What waits in a producer: it shares appends, and no more of it waits than the buffer holds."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import pytest
from anyio.lowlevel import checkpoint

from rustmq_sdk import BufferFull, OutgoingMessage, Producer, SentMessage, TransientDriverError
from rustmq_sdk._runtime.dispatcher import SENDERS
from tests.unit.producer_bench import Bench
from tests.unit.producer_bench import bench as bench

pytestmark = pytest.mark.virtual_time


class TestSharing:
    """Messages that are sent at the same time share appends."""

    async def test_concurrent_sends_share_an_append(self, bench: Bench) -> None:
        bench.wire.seconds = 1.0
        async with bench.producer() as producer:
            await producer.send("t", "first")
            async with anyio.create_task_group() as tasks:
                for n in range(100):
                    tasks.start_soon(producer.send, "t", str(n))

            assert len(bench.wire.appends) == 2
            assert len(set(bench.stored())) == 101

    async def test_a_lone_send_does_not_linger(self, bench: Bench) -> None:
        async with bench.producer(linger=3600) as producer:
            await producer.send("t", "a")
            before = anyio.current_time()
            await producer.send("t", "b")
            assert anyio.current_time() - before < 1

    async def test_messages_nobody_waits_for_linger_and_share_an_append(self, bench: Bench) -> None:
        async with bench.producer(linger=5.0) as producer:
            await producer.send("t", "first")
            for n in range(10):
                producer.send_nowait("t", str(n))
                await anyio.sleep(0.1)

            await anyio.sleep(3.9)
            assert len(bench.wire.appends) == 1
            await anyio.sleep(0.2)
            assert len(bench.wire.appends) == 2
            assert bench.stored() == ["first", *map(str, range(10))]

    async def test_no_append_is_larger_than_a_batch(self, bench: Bench) -> None:
        async with bench.producer(batch_size=10, linger=1.0) as producer:
            for n in range(95):
                producer.send_nowait("t", str(n))

        assert [len(messages) for _, messages, _ in bench.wire.appends] == [10] * 9 + [5]

    async def test_what_waited_for_an_append_goes_together_where_the_sink_takes_more(self, bench: Bench) -> None:
        bench.wire.seconds = 1.0
        answers: dict[int, Sequence[SentMessage]] = {}

        async def send(producer: Producer, n: int) -> None:
            answers[n] = await producer.send_batch("t", [f"{n}.{m}" for m in range(5)])

        async with bench.producer(batch_size=5, append_messages=12) as producer, anyio.create_task_group() as tasks:
            for n in range(6):
                tasks.start_soon(send, producer, n)
                await checkpoint()

        assert [len(messages) for _, messages, _ in bench.wire.appends] == [10, 10, 10]
        stored = bench.stored()
        for n, sent in answers.items():
            assert [stored[each.offset or 0] for each in sent] == [f"{n}.{m}" for m in range(5)]

    async def test_messages_without_a_key_take_turns_between_partitions_batch_by_batch(self, bench: Bench) -> None:
        await bench.create(4, "wide")
        async with bench.producer(batch_size=10) as producer:
            for n in range(80):
                producer.send_nowait("wide", str(n))

        assert sorted(partition for partition, _, _ in bench.wire.appends) == [0, 0, 1, 1, 2, 2, 3, 3]

    async def test_a_batch_without_keys_fills_batches(self, bench: Bench) -> None:
        await bench.create(4, "wide")
        async with bench.producer(batch_size=10) as producer:
            await producer.send_batch("wide", [str(n) for n in range(40)])

        assert sorted((partition, len(messages)) for partition, messages, _ in bench.wire.appends) == [
            (0, 10),
            (1, 10),
            (2, 10),
            (3, 10),
        ]

    async def test_one_message_after_the_other_without_a_key_takes_turns_too(self, bench: Bench) -> None:
        await bench.create(4, "wide")
        async with bench.producer() as producer:
            sent = [await producer.send("wide", str(n)) for n in range(8)]

        assert [place.offset for place in sent] == [0] * 4 + [1] * 4

    async def test_many_messages_of_one_key_are_cut_into_batches(self, bench: Bench) -> None:
        await bench.create(4, "wide")
        async with bench.producer(batch_size=10) as producer:
            sent = await producer.send_batch("wide", [OutgoingMessage(b"x", key=b"k") for _ in range(25)])

        assert [place.offset for place in sent] == list(range(25))
        assert [len(messages) for _, messages, _ in bench.wire.appends] == [10, 10, 5]

    async def test_partitions_append_at_the_same_time_with_a_fixed_number_of_tasks(self, bench: Bench) -> None:
        await bench.create(30, "wide")
        bench.wire.seconds = 1.0
        async with bench.producer() as producer:
            before = anyio.current_time()
            await producer.send_batch("wide", [OutgoingMessage(b"x", partition=n) for n in range(30)])
            assert anyio.current_time() - before < 5
            assert bench.wire.most_at_once == SENDERS


class TestBounded:
    async def test_send_nowait_says_when_the_buffer_is_full(self, bench: Bench) -> None:
        async with bench.producer(max_buffered=3, batch_size=3) as producer:
            for n in range(3):
                producer.send_nowait("t", str(n))

            with pytest.raises(BufferFull, match=r"max_buffered=3 .*await producer\.flush\(\)"):
                producer.send_nowait("t", "4")

            await producer.flush()
            producer.send_nowait("t", "4")

        assert bench.stored() == ["0", "1", "2", "4"]

    async def test_send_waits_for_room_and_those_who_wait_are_served_in_order(self, bench: Bench) -> None:
        bench.wire.seconds = 1.0
        async with bench.producer(max_buffered=2, batch_size=2) as producer, anyio.create_task_group() as tasks:
            for n in range(9):
                tasks.start_soon(producer.send, "t", str(n))
                await checkpoint()

        assert bench.stored() == [str(n) for n in range(9)]
        assert max(len(messages) for _, messages, _ in bench.wire.appends) <= 2

    async def test_who_needs_little_room_does_not_overtake_who_needs_much(self, bench: Bench) -> None:
        bench.wire.seconds = 1.0
        async with bench.producer(max_buffered=3, batch_size=3) as producer, anyio.create_task_group() as tasks:
            for messages in (["a", "b"], ["c", "d", "e"], ["f"]):
                tasks.start_soon(producer.send_batch, "t", messages)
                await checkpoint()

        assert bench.stored() == list("abcdef")

    async def test_waiting_for_room_ends_in_time(self, bench: Bench) -> None:
        async with bench.producer(max_buffered=2, batch_size=2, send_timeout=10) as producer:
            # Places that nobody gives back, as by a sink that goes on hanging beyond its time.
            assert producer._room.take_nowait(1)
            before = anyio.current_time()
            with pytest.raises(TransientDriverError, match="max_buffered=2 messages were waiting"):
                await producer.send_batch("t", ["a", "b"])

            assert anyio.current_time() - before == pytest.approx(10)
            await producer.send("t", "c")
