"""The producer over a memory sink: durable, in order, once, and in the partition that was meant."""

from __future__ import annotations

import anyio
import pytest
from anyio.lowlevel import checkpoint

from rustmq_sdk import Client, ConfigurationError, OutcomeUnknown, OutgoingMessage, SentMessage
from rustmq_sdk._core.partitioner import partition_for
from rustmq_sdk._runtime.dispatcher import ASK_AGAIN_AFTER
from tests.unit.producer_bench import Bench, Fault, hang, lose_the_answer, refuse, store_and_hang
from tests.unit.producer_bench import bench as bench

pytestmark = pytest.mark.virtual_time


class TestDurable:
    async def test_what_send_returns_is_where_it_is_stored(self, bench: Bench) -> None:
        async with bench.producer() as producer:
            assert (await producer.send("t", "a"))[:3] == ("t", 0, 0)
            assert (await producer.send("t", b"b", timestamp=77)) == SentMessage("t", 0, 1, 77)
            assert bench.stored() == ["a", "b"]

    async def test_everything_of_a_message_is_stored(self, bench: Bench) -> None:
        headers = [("h", b"1"), ("h", None)]
        async with bench.producer() as producer:
            await producer.send("t", "Grüße", key="k", headers=headers, partition=0, timestamp=5)

        (log,) = bench.driver.broker.logs("t", slot="source", operation="read")
        assert log._entries == [("Grüße".encode(), b"k", tuple(headers), 0, 5)]

    async def test_a_batch_comes_back_in_its_order_across_partitions(self, bench: Bench) -> None:
        await bench.create(3, "wide")
        messages = [OutgoingMessage(str(n).encode(), key=f"key-{n % 5}".encode()) for n in range(50)]
        async with bench.producer(batch_size=4) as producer:
            sent = await producer.send_batch("wide", messages)

        assert len(sent) == 50
        for message, place in zip(messages, sent, strict=True):
            assert message.key is not None
            assert place.partition == partition_for(message.key, 3)
            assert place.offset is not None
            assert bench.stored("wide", place.partition)[place.offset].encode() == message.payload

    async def test_a_batch_larger_than_the_buffer_is_sent_all_the_same(self, bench: Bench) -> None:
        async with bench.producer(batch_size=3, max_buffered=7) as producer:
            sent = await producer.send_batch("t", [str(n) for n in range(25)])

        assert [place.offset for place in sent] == list(range(25))
        assert bench.stored() == [str(n) for n in range(25)]

    async def test_an_empty_batch_is_sent_at_once(self, bench: Bench) -> None:
        async with bench.producer() as producer:
            assert await producer.send_batch("t", []) == []

    async def test_a_topic_that_is_not_there_is_created_where_the_driver_does_that(self, bench: Bench) -> None:
        async with bench.producer() as producer:
            assert (await producer.send("new", "a")).topic == "new"


class TestOrder:
    async def test_order_within_a_partition_survives_refusals(self, bench: Bench) -> None:
        bench.wire.fail(refuse, refuse, lose_the_answer, refuse)
        async with bench.producer(batch_size=5) as producer:
            for n in range(40):
                producer.send_nowait("t", str(n))

        assert bench.stored() == [str(n) for n in range(40)]

    async def test_order_holds_from_before_the_number_of_partitions_was_known(self, bench: Bench) -> None:
        await bench.create(3, "wide")
        bench.wire.asking = [5.0]
        async with bench.producer() as producer:
            for n in range(20):
                producer.send_nowait("wide", str(n), key="same")
                await checkpoint()

            await producer.send("wide", "last", key="same")

        partition = partition_for(b"same", 3)
        assert bench.stored("wide", partition) == [*map(str, range(20)), "last"]

    async def test_a_stream_that_nobody_awaits_keeps_the_order_of_every_partition(self, bench: Bench) -> None:
        await bench.create(3, "wide")
        bench.wire.seconds = 0.01
        expected: dict[int, list[str]] = {0: [], 1: [], 2: []}
        async with bench.producer(batch_size=7, linger=0.02) as producer:
            for n in range(300):
                key = b"k%d" % (n % 5)
                if n % 4 == 0:
                    producer.send_nowait("wide", str(n), partition=n % 3)
                    expected[n % 3].append(str(n))
                elif n % 4 == 1:
                    producer.send_nowait("wide", str(n))
                else:
                    producer.send_nowait("wide", str(n), key=key)
                    expected[partition_for(key, 3)].append(str(n))

                if n % 11 == 0:
                    await anyio.sleep(0.005)

                if n % 37 == 0:
                    await producer.flush()

        stored = [bench.stored("wide", number) for number in range(3)]
        assert sorted(int(name) for names in stored for name in names) == list(range(300))
        for number, names in enumerate(stored):
            assert [name for name in names if int(name) % 4 != 1] == expected[number]
            assert names == sorted(names, key=int)

        assert max(len(messages) for _, messages, _ in bench.wire.appends) <= 7

    async def test_a_slow_partition_does_not_hold_up_the_others(self, bench: Bench) -> None:
        await bench.create(2, "wide")
        bench.wire.fail(hang, topic="wide", partition=0)
        async with bench.producer() as producer:
            producer.send_nowait("wide", "slow", partition=0)
            before = anyio.current_time()
            await producer.send("wide", "fast", partition=1)
            assert anyio.current_time() - before < 1


class TestOnce:
    @pytest.mark.parametrize("fault", [lose_the_answer, store_and_hang, refuse, hang])
    async def test_a_repeated_append_is_stored_once_where_the_sink_recognises_it(
        self, bench: Bench, fault: Fault
    ) -> None:
        bench.wire.fail(fault, fault)
        async with bench.producer() as producer:
            assert (await producer.send("t", "a")).offset == 0
            assert (await producer.send("t", "b")).offset == 1

        assert bench.stored() == ["a", "b"]
        assert len({sequence for _, messages, sequence in bench.wire.appends if messages == [b"a"]}) == 1

    async def test_a_lost_answer_is_the_callers_to_know_where_the_sink_recognises_nothing(self, bench: Bench) -> None:
        bench.wire.fail(lose_the_answer)
        async with bench.producer(idempotent=False) as producer:
            with pytest.raises(OutcomeUnknown, match="may or may not be stored"):
                await producer.send("t", "a")

        assert bench.stored() == ["a"]
        assert [sequence for _, _, sequence in bench.wire.appends] == [None]

    async def test_a_refusal_is_repeated_even_where_the_sink_recognises_nothing(self, bench: Bench) -> None:
        bench.wire.fail(refuse, refuse)
        async with bench.producer(idempotent=False) as producer:
            assert (await producer.send("t", "a")).offset == 0

    async def test_after_a_batch_of_unknown_fate_no_later_one_is_taken_for_it(self, bench: Bench) -> None:
        bench.wire.always = store_and_hang
        async with bench.producer() as producer:
            with pytest.raises(OutcomeUnknown):
                await producer.send("t", "a")

            bench.wire.always = None
            assert (await producer.send("t", "b")).offset == 1
            assert (await producer.send("t", "c")).offset == 2

        assert bench.stored() == ["a", "b", "c"]
        ids = {messages[0]: sequence for _, messages, sequence in bench.wire.appends if sequence is not None}
        assert ids[b"a"].producer_id != ids[b"b"].producer_id == ids[b"c"].producer_id
        assert (ids[b"b"].first, ids[b"c"].first) == (0, 1)

    async def test_two_producers_are_told_apart(self, bench: Bench) -> None:
        async with bench.producer() as one, bench.producer() as two:
            await one.send("t", "a")
            await two.send("t", "b")

        assert bench.stored() == ["a", "b"]


class TestPartitions:
    async def test_a_partition_that_is_not_there_is_refused_after_asking_again(self, bench: Bench) -> None:
        async with bench.producer() as producer:
            await producer.send("t", "a")
            with pytest.raises(ConfigurationError, match="topic 't' has partitions 0 to 0"):
                await producer.send("t", "b", partition=1)

            assert bench.wire.asked == ["t", "t"]
            with pytest.raises(ConfigurationError):
                await producer.send_batch("t", [OutgoingMessage(b"c"), OutgoingMessage(b"d", partition=7)])

        assert bench.stored() == ["a"]

    async def test_a_partition_that_was_added_is_found(self, bench: Bench) -> None:
        async with bench.producer() as producer:
            await producer.send("t", "a")
            await bench.driver.admin().delete_topic("t")
            await bench.create(2)
            assert (await producer.send("t", "b", partition=1)).partition == 1

    async def test_the_number_of_partitions_is_asked_for_now_and_then(self, bench: Bench) -> None:
        async with bench.producer() as producer:
            for _ in range(10):
                await producer.send("t", "a")

            assert len(bench.wire.asked) == 1
            await anyio.sleep(ASK_AGAIN_AFTER)
            await producer.send("t", "a")
            assert len(bench.wire.asked) == 2


async def test_a_client_sends_through_its_driver() -> None:
    async with Client("memory://?") as client:
        async with client.producer(linger=0) as producer:
            await producer.send("t", "a", key="k")

        assert await client.topics() == {"t": 1}
