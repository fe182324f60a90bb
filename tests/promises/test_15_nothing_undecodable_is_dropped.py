"""Promise 15: what cannot be decoded, or is rejected, is never dropped: it is dead-lettered, or its partition stops."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rustmq_sdk import Message, PartitionStopped, PermanentDriverError, Reject
from rustmq_sdk.testing import BACKENDS
from rustmq_sdk.testing import run as run_test
from rustmq_sdk.testing.clock import Backend
from rustmq_sdk.values import OutgoingMessage
from tests.promises.stage import (
    DLQ,
    GROUP,
    TP,
    Stage,
    ack,
    handle_all,
    in_background,
    numbered,
    offsets,
    passes,
    take,
    take_all,
    texts,
    until,
)


async def fine(message: Message) -> None:
    """A handler."""


@pytest.mark.virtual_time
class TestUndecodable:
    async def test_it_is_dead_lettered_with_its_raw_bytes_and_everything_else_flows(self, stage: Stage) -> None:
        stage.send(3)
        stage.broker.append_broken("t", 0, b"\xff\x00broken")
        stage.broker.append_broken("t", 0, b"")
        stage.send(2)
        async with stage.consumer(dead_letter_topic=DLQ) as consumer:
            assert offsets(await take_all(consumer)) == [0, 1, 2, 5, 6]

        async with stage.consumer(dead_letter_topic=DLQ) as consumer:
            assert await handle_all(consumer) == ["m0", "m1", "m2", "m5", "m6"]

        assert stage.committed() == 7
        assert [(letter.offset, letter.payload) for letter in stage.letters] == [(3, b"\xff\x00broken"), (4, b"")]
        assert "could not be decoded: not a record" in stage.letters[0].reason
        assert stage.letters[0].exception_type == "builtins.ValueError"

    async def test_one_line_says_it_of_all_that_lie_together_for_the_same_reason(
        self, stage: Stage, caplog: pytest.LogCaptureFixture
    ) -> None:
        stage.create(1)
        for _ in range(3):
            stage.broker.append_broken("t", 0, b"raw")

        stage.send(1)
        stage.broker.append_broken("t", 0, b"raw")
        async with stage.consumer(dead_letter_topic=DLQ) as consumer:
            assert offsets(await take_all(consumer)) == [3]

        assert len(stage.letters) == 4
        said = [record.getMessage() for record in caplog.records if getattr(record, "event", "") == "dead_lettered"]
        assert [line.partition(" is dead")[0] for line in said] == ["t[0]@0 to t[0]@2 (3 messages)", "t[0]@4"]

    @pytest.mark.parametrize("place", [0, 1, 4])
    async def test_without_a_route_its_partition_stops_and_others_flow(self, stage: Stage, place: int) -> None:
        stage.create(2)
        stage.send(place)
        stage.broker.append_broken("t", 0, b"raw")
        stage.send(3)
        stage.send(["x", "y"], partition=1)
        async with stage.consumer() as consumer:
            messages = await take_all(consumer)
            await ack(*messages)
            stage.send(["z"], partition=1)
            assert texts(await take_all(consumer)) == ["z"]
            await consumer.commit()
            assert sorted(texts(messages)) == [*numbered(place), "x", "y"]
            assert stage.committed(0) in (None, place)
            assert stage.committed(1) == 2
            (reason,) = [reason for reason in consumer.health().reasons if reason.code == "partition_stopped"]
            assert (reason.partition, reason.offset) == (TP, place)
            assert "could not be decoded" in reason.text
            assert not consumer.health().ok
            consumer.resume_partitions([TP])
            assert await handle_all(consumer) == numbered(3, place + 1)

        assert stage.committed(0) == place + 4

    @pytest.mark.parametrize("prefetch", [1, 3, 1000])
    async def test_what_came_before_it_is_delivered_before_its_partition_stops(
        self, stage: Stage, prefetch: int
    ) -> None:
        stage.send(5)
        stage.broker.append_broken("t", 0, b"raw")
        stage.send(2)
        async with stage.consumer(prefetch=prefetch) as consumer:
            for number in range(5):
                message = await consumer.receive(5)
                assert message.text() == f"m{number}"
                assert consumer.health().ok
                await message.ack(durable=number % 2 == 0)

            with pytest.raises(PartitionStopped):
                await consumer.receive(5)

            assert stage.committed() == 5
            consumer.resume_partitions([TP])
            assert await handle_all(consumer) == ["m6", "m7"]

    async def test_a_batch_ends_before_it_and_the_next_one_is_told_at_once(self, stage: Stage) -> None:
        stage.send(5)
        stage.broker.append_broken("t", 0, b"raw")
        stage.send(2)
        async with stage.consumer() as consumer:
            assert texts(await consumer.receive_batch(100, max_wait=1)) == numbered(5)
            with anyio.fail_after(1), pytest.raises(PartitionStopped):
                await consumer.receive_batch(100, max_wait=1000)

            await consumer.seek("t", 0, 5)
            with anyio.fail_after(1), pytest.raises(PartitionStopped):
                await consumer.receive_batch(100, max_wait=1000)

    @pytest.mark.parametrize("options", [{"concurrency": 3}, {"concurrency": 2, "batch_size": 3}])
    @pytest.mark.parametrize("ordering", ["key", "partition", "none"])
    async def test_messages_before_it_that_wait_for_their_key_are_handled_first(
        self, stage: Stage, ordering: Any, options: Any
    ) -> None:
        stage.send(6, keys=["a", "a", "b"])
        stage.broker.append_broken("t", 0, b"raw")
        stage.send(2)
        handled: list[str] = []

        async def handler(messages: Any) -> None:
            await passes(1)
            handled.extend(texts(messages if isinstance(messages, list) else [messages]))

        async with stage.consumer() as consumer:
            with pytest.raises(PartitionStopped):
                await consumer.run(handler, ordering=ordering, **options)

        assert sorted(handled) == numbered(6)
        assert stage.committed() == 6

    async def test_a_retry_that_is_still_to_come_waits_with_the_stopped_partition(self, stage: Stage) -> None:
        stage.send(2)
        stage.broker.append_broken("t", 0, b"raw")
        async with stage.consumer() as consumer:
            first, second = await take(consumer, 2)
            await first.nack(delay=20)
            await second.ack()
            with pytest.raises(PartitionStopped):
                await consumer.receive(60)

            await passes(30)
            consumer.resume_partitions([TP])
            assert [(message.text(), message.attempt) for message in await take_all(consumer)] == [("m0", 2)]

    async def test_a_seek_back_over_it_forgets_the_stop_until_its_turn_comes_again(self, stage: Stage) -> None:
        stage.send(3)
        stage.broker.append_broken("t", 0, b"raw")
        async with stage.consumer() as consumer:
            assert texts(await take(consumer, 1)) == ["m0"]
            await consumer.seek("t", 0, 1)
            assert texts(await take(consumer, 2)) == ["m1", "m2"]
            with pytest.raises(PartitionStopped):
                await consumer.receive(5)

    async def test_where_every_partition_is_stopped_receivers_are_told(self, stage: Stage) -> None:
        stage.broker.create_topic("t", 1)
        stage.broker.append_broken("t", 0, b"raw")
        async with stage.consumer() as consumer:
            for call in (consumer.receive, consumer.receive_batch, lambda: consumer.run(fine)):
                with pytest.raises(PartitionStopped, match="could not be decoded") as caught:
                    await call()

                assert (caught.value.topic, caught.value.partition, caught.value.offset) == ("t", 0, 0)
                assert "dead_letter_topic" in caught.value.fix

        assert stage.committed() is None

    async def test_the_position_does_not_pass_it_before_its_letter_is_written(self, stage: Stage) -> None:
        stage.broker.create_topic("t", 1)
        stage.broker.append_broken("t", 0, b"raw")
        stage.send(2)
        stage.plan.breaks("dead_letters.put")
        async with stage.consumer(dead_letter_topic=DLQ, circuit_open=5) as consumer:
            await ack(*(await take(consumer, 2)))
            await passes(60)
            assert (stage.committed(), list(stage.letters)) == (0, [])
            stage.plan.heals()
            await until(lambda: stage.committed() == 3)
            assert [letter.payload for letter in stage.letters] == [b"raw"]

    async def test_closed_before_its_letter_is_written_it_comes_again(self, stage: Stage) -> None:
        stage.broker.create_topic("t", 1)
        stage.broker.append_broken("t", 0, b"raw")
        stage.send(2)
        stage.plan.breaks("dead_letters.put", kind="hang")
        async with stage.consumer(dead_letter_topic=DLQ) as consumer:
            await ack(*(await take(consumer, 2)))

        assert stage.committed() == 0
        stage.plan.heals()
        async with stage.consumer(dead_letter_topic=DLQ) as consumer:
            assert await handle_all(consumer) == []

        assert [letter.payload for letter in stage.letters] == [b"raw"]
        assert stage.committed() == 3

    async def test_a_rebalance_while_its_letter_is_written_loses_nothing(self, stage: Stage) -> None:
        stage.create(2)
        for partition in range(2):
            stage.broker.append_broken("t", partition, b"raw")
            stage.send(5, partition=partition)

        stage.plan.breaks("dead_letters.put", kind="hang", seconds=5)
        options: dict[str, Any] = {"dead_letter_topic": DLQ}
        async with stage.consumer(**options) as one, anyio.create_task_group() as group:
            first = await in_background(group, lambda: handle_all(one, quiet=60))
            async with stage.consumer(**options) as other:
                stage.broker.rebalance(GROUP)
                second = await handle_all(other, quiet=60)

            await until(lambda: first)

        assert sorted({*first[0], *second}) == [f"m{number}" for number in range(1, 6)]
        assert {(letter.tp.partition, letter.payload) for letter in stage.letters} == {(0, b"raw"), (1, b"raw")}
        assert (stage.committed(0), stage.committed(1)) == (6, 6)

    async def test_a_queue_hands_out_bytes_as_they_are(self, queue: Stage) -> None:
        queue.create()
        queue.broker.append_broken("t", 0, b"\xff\x00")
        async with queue.consumer() as consumer:
            message = await consumer.receive(5)
            assert message.payload == b"\xff\x00"
            with pytest.raises(UnicodeDecodeError):
                message.text()

            with pytest.raises(ValueError, match=r"malformed|invalid"):
                message.json()

    @pytest.mark.parametrize("backend", BACKENDS)
    @settings(max_examples=15, deadline=None)
    @given(
        payload=st.none() | st.binary(max_size=50),
        key=st.none() | st.binary(max_size=10),
        headers=st.lists(st.tuples(st.text(max_size=5), st.none() | st.binary(max_size=20)), max_size=5),
    )
    def test_any_bytes_come_as_they_were_sent_and_reach_the_dead_letters_so(
        self, backend: Backend, payload: bytes | None, key: bytes | None, headers: list[tuple[str, bytes | None]]
    ) -> None:
        stage = Stage()

        async def live() -> None:
            async with stage.client() as client, client.producer() as producer:
                await producer.send_batch("t", [OutgoingMessage(payload, key, headers)])
                async with client.consumer("t", group=GROUP, dead_letter_topic=DLQ) as consumer:
                    message = await consumer.receive(5)
                    assert (message.payload, message.key, list(message.headers)) == (payload, key, headers)
                    await message.nack(delay=0)
                    again = await consumer.receive(5)
                    assert (again.payload, again.key, list(again.headers)) == (payload, key, headers)
                    await again.reject()

        run_test(live, backend=backend)
        (letter,) = stage.letters
        assert (letter.payload, letter.key, list(letter.headers)) == (payload, key, headers)
        stage.close()


@pytest.mark.virtual_time
class TestDeadLetterRoutes:
    async def test_a_route_that_refuses_stops_the_partition_and_says_why(self, stage: Stage) -> None:
        stage.send(2)

        async def route(letters: object) -> None:
            raise PermanentDriverError("too large", slot="dead_letters", operation="put")

        async with stage.consumer(dead_letters=route) as consumer:
            first, second = await take(consumer, 2)
            await first.reject("no good")
            await ack(second)
            with pytest.raises(PartitionStopped, match=r"its dead letter was refused: .*too large"):
                await consumer.receive(5)

        assert stage.committed() == 0

    async def test_a_reject_that_is_raised_reaches_the_route_with_its_reason(self, stage: Stage) -> None:
        stage.send(1)

        async def handler(message: Message) -> None:
            consumer.stop()
            raise Reject("not for us")

        async with stage.consumer(dead_letter_topic=DLQ) as consumer:
            await consumer.run(handler)

        assert [letter.reason for letter in stage.letters] == ["not for us"]
