"""Dead letters in a topic: each once, and none of them in the way of others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

pytest.importorskip("aiokafka")

from rustmq_sdk._asyncio_island import Island
from rustmq_sdk.drivers.kafka.dead_letters import KafkaDeadLetters
from rustmq_sdk.errors import (
    AuthenticationFailed,
    NotAllStored,
    OutcomeUnknown,
    PermanentDriverError,
    TransientDriverError,
)
from rustmq_sdk.values import DeadLetter, TopicPartition
from tests.unit.kafka_appender import connected
from tests.unit.kafka_appender import short_pauses as short_pauses
from tests.unit.kafka_broker import Broker

pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])


def letter(number: int, partition: int = 0) -> DeadLetter:
    origin = TopicPartition("t", partition)
    return DeadLetter(
        id=f"{origin}@{number}",
        payload=b"%d" % number,
        key=None,
        headers=(),
        timestamp=5,
        tp=origin,
        offset=number,
        group="g",
        reason="bad",
        exception_type="",
        exception_message="",
        stack="",
        attempts=1,
        first_failure=6,
        last_failure=7,
    )


@asynccontextmanager
async def dead_letters(broker: Broker) -> AsyncIterator[KafkaDeadLetters]:
    async with connected(broker) as sink, Island("kafka") as island:
        yield KafkaDeadLetters(island, sink, "dead", ("rustmq",))


async def test_a_letter_goes_to_the_partition_with_the_number_of_its_origin() -> None:
    broker = Broker(partitions=2)
    letters = [letter(number, number) for number in range(4)]
    async with dead_letters(broker) as queue:
        assert await queue.places(letters) == [0, 1, 0, 1]
        await queue.put(letters)
        await queue.put([])

    assert broker.log == {0: [b"0", b"2"], 1: [b"1", b"3"]}


async def test_one_that_is_never_taken_is_left_out_and_the_others_are_stored_once() -> None:
    broker = Broker(partitions=2)
    broker.refused = {b"2": 10, b"3": 10}
    letters = [letter(number, number % 2) for number in range(7)]
    async with dead_letters(broker) as queue:
        with pytest.raises(NotAllStored, match=r"max\.message\.bytes") as partly:
            await queue.put(letters)

        assert list(partly.value.refused) == [2, 3]
        with pytest.raises(PermanentDriverError, match=r"max\.message\.bytes") as refused:
            await queue.put([letter(2)])

        assert not isinstance(refused.value, NotAllStored)
        await queue.put([letter(7)])

    assert broker.log == {0: [b"0", b"4", b"6", b"7"], 1: [b"1", b"5"]}


async def test_a_topic_that_we_may_not_write_refuses_all_of_them() -> None:
    broker = Broker()
    broker.acts = [29]
    async with dead_letters(broker) as queue:
        with pytest.raises(NotAllStored) as partly:
            await queue.put([letter(0), letter(1)])

    assert [type(error) for error in partly.value.refused.values()] == [AuthenticationFailed] * 2


async def failed(queue: KafkaDeadLetters, broker: Broker, *letters: DeadLetter, before: int = 0) -> None:
    """They are stored, and their answer is lost, behind that of so many other appends."""
    broker.acts = [*[0] * before, "lose", *[19] * 1000]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rustmq_sdk.drivers.kafka.sink.APPEND", 0.5)
        with pytest.raises((OutcomeUnknown, TransientDriverError)):
            await queue.put(letters)

    broker.acts = []


async def test_letters_whose_answer_was_lost_are_stored_once_when_they_are_put_again() -> None:
    broker = Broker()
    async with dead_letters(broker) as queue:
        await queue.put([letter(0)])
        await failed(queue, broker, letter(1), letter(2))
        await queue.put([letter(1), letter(2), letter(3)])
        await queue.put([letter(4)])

    assert broker.log[0] == [b"0", b"1", b"2", b"3", b"4"]


async def test_nor_are_those_stored_again_that_were_in_front_of_them() -> None:
    broker = Broker()
    async with dead_letters(broker) as queue:
        await failed(queue, broker, letter(1))
        await failed(queue, broker, letter(1), letter(2), before=1)
        await failed(queue, broker, letter(1), letter(2), letter(3), before=1)
        await queue.put([letter(1), letter(2), letter(3), letter(4)])

    assert broker.log[0] == [b"1", b"2", b"3", b"4"]


async def test_what_is_refused_after_them_is_named_by_its_place_among_all() -> None:
    broker = Broker()
    broker.refused = {b"4": 10}
    async with dead_letters(broker) as queue:
        await failed(queue, broker, letter(1), letter(2))
        with pytest.raises(NotAllStored) as partly:
            await queue.put([letter(1), letter(2), letter(3), letter(4)])

    assert list(partly.value.refused) == [3]
    assert broker.log[0] == [b"1", b"2", b"3"]


async def test_other_letters_are_not_taken_for_those_whose_answer_was_lost() -> None:
    broker = Broker()
    async with dead_letters(broker) as queue:
        await failed(queue, broker, letter(1), letter(2))
        await queue.put([letter(2), letter(3)])

    assert broker.log[0] == [b"1", b"2", b"2", b"3"], "one twice is better than one lost"
