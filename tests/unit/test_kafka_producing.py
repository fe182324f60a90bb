"""Each append once, whatever becomes of its answers. These classes know asyncio only."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest
from aiokafka.protocol.produce import ProduceRequest, ProduceResponse_v7

from rustmq_sdk.drivers.kafka import broker_queue, lines
from rustmq_sdk.drivers.kafka.cluster import Cluster
from rustmq_sdk.drivers.kafka.encoding import NOBODY, encode
from rustmq_sdk.drivers.kafka.failures import Unanswered
from rustmq_sdk.drivers.kafka.options import KafkaOptions
from rustmq_sdk.drivers.kafka.settings import client_settings
from rustmq_sdk.drivers.kafka.sink import Appender
from rustmq_sdk.errors import (
    AuthenticationFailed,
    NotAllStored,
    OutcomeUnknown,
    PermanentDriverError,
    TransientDriverError,
    UnknownTopic,
)
from rustmq_sdk.values import OutgoingMessage, Payloads, ProducerSequence
from tests.unit.kafka_appender import connected
from tests.unit.kafka_appender import short_pauses as short_pauses
from tests.unit.kafka_broker import Act, Broker

pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])

BRIEF = (0.2, 2.0, 9.0)
"""Seconds in which nothing succeeds: the first will do, but where the machine is so busy that there is no answer."""


async def queued(sink: Appender, count: int) -> None:
    """So many batches wait behind the request that is under way."""
    while len(sink._batches._queues[1]._waiting) < count:  # noqa: ASYNC110 - the broker does not answer meanwhile
        await asyncio.sleep(0)


def payloads(*numbers: int) -> Payloads:
    return Payloads([b"%d" % number for number in numbers])


AFTER_AN_APPEND = (3, 5, 6, 7, 13, 20, 56, 74)
"""What a leader may answer that has appended: that it is none any more, that the topic is gone, or its disk."""
MISHAPS: list[list[Act]] = [
    ["lose"],
    ["cut"],
    [6],
    [5, 19],
    [3],
    ["lose", "lose", 6, "after 7", "cut"],
    [20],
    [56],
    [-1],
    *[list[Act]([f"after {code}"]) for code in AFTER_AN_APPEND],
]


@pytest.mark.parametrize("acts", MISHAPS)
async def test_a_numbered_append_is_stored_once_whatever_happens_to_its_answers(acts: list[Act]) -> None:
    broker = Broker()
    async with connected(broker) as sink:
        await sink.append("t", 0, payloads(0), ProducerSequence(b"p", 0))
        broker.acts = list(acts)
        sent = await sink.append("t", 0, payloads(1, 2), ProducerSequence(b"p", 1))
        await sink.append("t", 0, payloads(3), ProducerSequence(b"p", 3))

    assert broker.log[0] == [b"0", b"1", b"2", b"3"]
    assert [one.offset for one in sent] == [1, 2]


async def test_an_append_that_was_given_up_is_the_same_when_it_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = Broker()
    async with connected(broker) as sink:
        monkeypatch.setattr("rustmq_sdk.drivers.kafka.sink.APPEND", 0.2)
        broker.acts = ["hang"]
        with pytest.raises(OutcomeUnknown):
            await sink.append("t", 0, payloads(1), ProducerSequence(b"p", 0))

        monkeypatch.setattr("rustmq_sdk.drivers.kafka.sink.APPEND", 9.0)
        monkeypatch.setattr("rustmq_sdk.drivers.kafka.cluster.ANSWER", 0.1)
        sink._batches._queues.clear()  # the queue waits for the first answer still, for seconds
        assert [one.offset for one in await sink.append("t", 0, payloads(1), ProducerSequence(b"p", 0))] == [0]

    assert broker.log[0] == [b"1"]


async def test_an_append_that_was_given_up_is_the_same_after_any_number_of_other_producers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broker = Broker()
    monkeypatch.setattr(lines, "PRODUCERS", 3)
    async with connected(broker) as sink:
        await sink.append("t", 0, payloads(0), ProducerSequence(b"p", 0))
        broker.acts = ["lose", 29]
        with pytest.raises(OutcomeUnknown):
            await sink.append("t", 0, payloads(1), ProducerSequence(b"p", 1))

        for number in range(9):
            await sink.append("t", 0, payloads(10 + number), ProducerSequence(b"other %d" % number, 0))

        assert [one.offset for one in await sink.append("t", 0, payloads(1), ProducerSequence(b"p", 1))] == [1]

    assert broker.log[0] == [b"%d" % number for number in (0, 1, *range(10, 19))]


async def test_many_producers_keep_their_names() -> None:
    broker = Broker()
    async with connected(broker) as sink:
        for number in range(3):
            for producer in range(20):
                await sink.append("t", 0, payloads(number), ProducerSequence(b"%d" % producer, number))

    assert broker.names == 20


@pytest.mark.parametrize("act", ["lose", "cut", 56, -1, *(f"after {code}" for code in AFTER_AN_APPEND)])
async def test_without_numbers_a_lost_answer_is_an_unknown_outcome_at_once(act: Act) -> None:
    broker = Broker()
    async with connected(broker) as sink:
        broker.acts = [act]
        with pytest.raises(OutcomeUnknown):
            await sink.append("t", 0, payloads(1), None)

        assert len(broker.requests) == 1


async def test_without_numbers_what_was_surely_not_stored_is_sent_again() -> None:
    broker = Broker()
    async with connected(broker) as sink:
        broker.acts = [6, 19, 5]
        await sink.append("t", 0, payloads(1), None)

    assert broker.log[0] == [b"1"]


async def test_an_append_that_cannot_be_made_in_time_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = Broker()
    async with connected(broker) as sink:
        broker.acts = [19] * 1000
        for seconds in BRIEF:
            monkeypatch.setattr("rustmq_sdk.drivers.kafka.sink.APPEND", seconds)
            with pytest.raises((OutcomeUnknown, TransientDriverError)) as late:
                await sink.append("t", 0, payloads(1), ProducerSequence(b"%g" % seconds, 0))

            # The time may run out just while a request is under way: then nobody knows.
            if isinstance(late.value, TransientDriverError) and "no answer" not in str(late.value):
                break

        broker.acts = []
        assert not broker.log[0]
        assert isinstance(late.value, TransientDriverError)
        assert "min.insync.replicas" in str(late.value)
        assert f"{seconds:g} s" in str(late.value)


async def test_who_is_in_a_hurry_is_told_soon_that_nothing_was_sent_unless_something_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broker = Broker()
    monkeypatch.setattr("rustmq_sdk.drivers.kafka.sink.APPEND", 100.0)
    async with connected(broker) as sink:
        broker.acts = [6] * 1000
        with anyio.fail_after(30), pytest.raises(TransientDriverError, match="NotLeaderForPartition"):
            await sink.append("t", 0, payloads(1), ProducerSequence(b"p", 0), hurried=True)

        broker.acts = ["cut", *[6] * 100]
        await sink.append("t", 0, payloads(1), ProducerSequence(b"p", 0), hurried=True)

    assert broker.log[0] == [b"1"]
    async with connected(broker) as sink:
        await sink.append("t", 0, payloads(2), ProducerSequence(b"p", 1), hurried=True)
        sink._batches._cluster._connections.close()
        with pytest.raises(TransientDriverError):
            await sink.append("t", 0, payloads(3), ProducerSequence(b"p", 2), hurried=True)


async def test_an_error_after_a_lost_answer_does_not_say_that_nothing_is_stored() -> None:
    broker = Broker()
    async with connected(broker) as sink:
        broker.acts = ["lose", 29]
        with pytest.raises(OutcomeUnknown, match="ACL"):
            await sink.append("t", 0, payloads(1), ProducerSequence(b"p", 0))


async def test_a_broker_that_has_lost_count_gets_new_numbers() -> None:
    broker = Broker()
    async with connected(broker) as sink:
        await sink.append("t", 0, payloads(0, 1), ProducerSequence(b"p", 0))
        broker.forget_producers()
        await sink.append("t", 0, payloads(2), ProducerSequence(b"p", 2))
        await sink.append("t", 0, payloads(3), ProducerSequence(b"p", 3))

    assert broker.log[0] == [b"0", b"1", b"2", b"3"]
    assert broker.names == 2


@pytest.mark.parametrize("act", ["cut", "after 6"])
async def test_a_broker_that_has_lost_count_after_a_lost_answer_leaves_the_outcome_unknown(act: Act) -> None:
    broker = Broker()
    async with connected(broker) as sink:
        broker.acts = [act, 45]
        with pytest.raises(OutcomeUnknown):
            await sink.append("t", 0, payloads(0), ProducerSequence(b"p", 0))


async def test_an_append_that_is_repeated_later_is_answered_from_memory() -> None:
    broker = Broker()
    async with connected(broker) as sink:
        sent = [await sink.append("t", 0, payloads(number), ProducerSequence(b"p", number)) for number in range(3)]
        requests = len(broker.requests)
        for number in range(3):
            assert await sink.append("t", 0, payloads(number), ProducerSequence(b"p", number)) == sent[number]

    assert len(broker.requests) == requests


async def test_an_append_of_more_batches_than_a_broker_remembers_goes_on_where_it_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broker = Broker()
    messages = Payloads([b"%d" % number + b"x" * 99 for number in range(9)])
    async with connected(broker, batch_bytes=1) as sink:
        broker.acts = [*[0] * 8, *[19] * 1000]
        for seconds in BRIEF:
            monkeypatch.setattr("rustmq_sdk.drivers.kafka.sink.APPEND", seconds)
            with pytest.raises((OutcomeUnknown, TransientDriverError)) as late:
                await sink.append("t", 0, messages, ProducerSequence(b"p", 0))

            if "no answer" not in str(late.value):
                break

        assert "min.insync" in str(late.value)
        assert isinstance(late.value, OutcomeUnknown), "for some of it is stored"
        broker.acts = []
        monkeypatch.setattr("rustmq_sdk.drivers.kafka.sink.APPEND", 9.0)
        sent = await sink.append("t", 0, messages, ProducerSequence(b"p", 0))

    assert broker.log[0] == list(messages.bodies)
    assert [one.offset for one in sent] == list(range(9))


async def test_a_connection_whose_answer_is_late_is_not_used_again() -> None:
    broker = Broker()
    async with broker.serving() as server:
        cluster = Cluster(client_settings(KafkaOptions(servers=(server,))))
        await cluster.open()
        broker.acts = ["hang"]
        data = encode(payloads(1), codec=0, now_ms=1, identity=NOBODY, sequence=-1)
        with pytest.raises(Unanswered, match="did not answer within"):
            await cluster.ask(1, ProduceRequest(None, -1, 1000, [("t", [(0, data)])]), 0.05)

        assert (await cluster.describe("t")).leaders == {0: 1, 1: 1}
        assert broker.connections == 2
        cluster.close()


async def test_a_queue_sends_one_batch_of_a_partition_at_a_time_and_none_overtakes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    requests: list[list[tuple[int, bytes]]] = []
    monkeypatch.setattr(broker_queue, "MOST", 10)

    async def ask(request: Any) -> Any:
        ((_, partitions),) = request._topics
        requests.append(partitions)
        answers = [(number, 0, 7, -1, 0) for number, _ in partitions]
        return ProduceResponse_v7([("t", answers)], 0)

    queue = broker_queue.BrokerQueue(ask)
    batches = [(0, b"a" * 6), (1, b"b" * 6), (1, b"c"), (0, b"d"), (2, b"e" * 20), (3, b"f")]
    async with asyncio.TaskGroup() as tasks:
        for number, data in batches:
            tasks.create_task(queue.send("t", number, data, lambda: None))

    assert requests == [
        [(0, b"a" * 6), (3, b"f")],
        [(1, b"b" * 6), (0, b"d")],
        [(1, b"c")],
        [(2, b"e" * 20)],
    ]


async def test_an_answer_that_leaves_a_partition_out_is_none() -> None:
    async def ask(request: Any) -> Any:
        return ProduceResponse_v7([], 0)

    with pytest.raises(Unanswered):
        await broker_queue.BrokerQueue(ask).send("t", 0, b"", lambda: None)


async def test_what_nobody_foresaw_ends_a_send_as_unanswered_and_the_queue_goes_on() -> None:
    answers: list[Any] = [RuntimeError("odd"), ProduceResponse_v7([("t", [(0, 0, 5, -1, 0)])], 0)]

    async def ask(request: Any) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer

        return answer

    queue = broker_queue.BrokerQueue(ask)
    with pytest.raises(Unanswered, match="odd"):
        await queue.send("t", 0, b"", lambda: None)

    assert (await queue.send("t", 0, b"", lambda: None)).base == 5


async def test_an_append_is_divided_into_batches_and_repeated_from_where_it_was() -> None:
    broker = Broker()
    messages = Payloads([b"%03d" % number + b"x" * 97 for number in range(20)])
    async with connected(broker, batch_bytes=500) as sink:
        broker.acts = [0, "lose", 0, 6]
        sent = await sink.append("t", 0, messages, ProducerSequence(b"p", 0))
        await sink.append("t", 0, payloads(1), ProducerSequence(b"p", 20))

    assert broker.log[0] == [*messages.bodies, b"1"]
    assert [one.offset for one in sent] == list(range(20))


async def test_batches_that_are_too_large_are_halved_until_they_fit() -> None:
    broker = Broker()
    broker.largest = 3
    async with connected(broker) as sink:
        broker.acts = [0, "lose", 0, "lose"]
        sent = await sink.append("t", 0, payloads(*range(10)), ProducerSequence(b"p", 0))
        await sink.append("t", 0, payloads(10), ProducerSequence(b"p", 10))

    assert broker.log[0] == [b"%d" % number for number in range(11)]
    assert [one.offset for one in sent] == list(range(10))


async def test_messages_that_are_never_taken_are_left_out_and_those_after_them_go_on() -> None:
    broker = Broker()
    broker.refused = {b"2": 10, b"5": 87, b"6": 32}
    async with connected(broker) as sink:
        await sink.append("t", 0, payloads(0), ProducerSequence(b"p", 0))
        for _ in range(2):  # a repeated append is answered the same
            with pytest.raises(
                NotAllStored, match=r"3 of those given are refused.*number 1.*max\.message\.bytes"
            ) as partly:
                await sink.append("t", 0, payloads(1, 2, 3, 4, 5, 6, 7), ProducerSequence(b"p", 1))

            assert list(partly.value.refused) == [1, 4, 5]
            assert all(type(error) is PermanentDriverError for error in partly.value.refused.values())
            assert [one and one.offset for one in partly.value.sent] == [1, None, 2, 3, None, None, 4]

        await sink.append("t", 0, payloads(8), ProducerSequence(b"p", 8))

    assert broker.log[0] == [b"0", b"1", b"3", b"4", b"7", b"8"]
    assert broker.names == 1, "it counts on, as the broker does"


async def test_a_message_that_cannot_be_encoded_is_left_out_as_well() -> None:
    broker = Broker()
    bad = OutgoingMessage(b"bad", headers=[("\ud800", b"")])
    for sequence in (ProducerSequence(b"p", 0), None):
        async with connected(broker) as sink:
            with pytest.raises(NotAllStored, match="cannot be stored by Kafka") as partly:
                await sink.append("t", 0, [OutgoingMessage(b"1"), bad, OutgoingMessage(b"2")], sequence)

            assert list(partly.value.refused) == [1]

    assert broker.log[0] == [b"1", b"2"] * 2


async def test_what_is_refused_behind_a_lost_answer_may_be_stored() -> None:
    broker = Broker()
    async with connected(broker) as sink:
        broker.acts = ["lose", 10]  # somebody has lowered the limit meanwhile
        with pytest.raises(OutcomeUnknown):
            await sink.append("t", 0, payloads(1), ProducerSequence(b"p", 0))

        broker.acts = ["lose", 10, 10]
        with pytest.raises(OutcomeUnknown):
            await sink.append("t", 1, payloads(1, 2), ProducerSequence(b"p", 0))

    assert broker.log[1] == [b"1", b"2"], "none twice"


async def test_what_may_not_be_sent_any_more_is_left_out_of_an_append() -> None:
    broker = Broker()
    messages = Payloads([b"%d" % number + b"x" * 99 for number in range(3)])
    async with connected(broker, batch_bytes=1) as sink:
        broker.acts = [0, 29]
        with pytest.raises(NotAllStored, match="ACL") as partly:
            await sink.append("t", 0, messages, ProducerSequence(b"p", 0))

    assert broker.log[0] == [messages.bodies[0]]
    assert [type(error) for error in partly.value.refused.values()] == [AuthenticationFailed] * 2
    assert len(broker.requests) == 2


async def test_what_may_not_be_sent_at_all_may_be_sent_later() -> None:
    broker = Broker()
    messages = Payloads([b"%d" % number + b"x" * 99 for number in range(3)])
    async with connected(broker, batch_bytes=1) as sink:
        broker.acts = [29]
        with pytest.raises(AuthenticationFailed):
            await sink.append("t", 0, messages, ProducerSequence(b"p", 0))

        await sink.append("t", 0, messages, ProducerSequence(b"p", 0))

    assert broker.log[0] == list(messages.bodies)


async def test_where_some_are_refused_and_none_is_stored_that_is_said() -> None:
    broker = Broker()
    messages = Payloads([b"%d" % number + b"x" * 99 for number in range(2)])
    async with connected(broker, batch_bytes=1) as sink:
        broker.acts = [10, *[6] * 1000]
        with pytest.raises(TransientDriverError):
            await sink.append("t", 0, messages, ProducerSequence(b"p", 0), hurried=True)


async def test_a_lost_answer_is_remembered_until_that_batch_is_known_to_be_stored() -> None:
    broker = Broker()
    messages = Payloads([b"%d" % number + b"x" * 99 for number in range(3)])
    async with connected(broker, batch_bytes=1) as sink:
        broker.acts = [0, "lose", 29]
        with pytest.raises(OutcomeUnknown):
            await sink.append("t", 0, messages, ProducerSequence(b"p", 0))

        broker.forget_producers()  # under another name it would be stored twice
        broker.acts = [45, 29]
        with pytest.raises(OutcomeUnknown):
            await sink.append("t", 0, messages, ProducerSequence(b"p", 0))

    assert broker.log[0] == list(messages.bodies[:2])


@pytest.mark.parametrize("before", [[0], ["lose", 0]])
async def test_a_broker_that_has_lost_count_between_two_batches_gets_new_numbers(before: list[Act]) -> None:
    broker = Broker()
    messages = Payloads([b"%d" % number + b"x" * 99 for number in range(3)])
    async with connected(broker, batch_bytes=1) as sink:
        broker.acts = [*before, 45]
        await sink.append("t", 0, messages, ProducerSequence(b"p", 0))

    assert broker.log[0] == list(messages.bodies)


async def test_one_message_that_is_too_large_is_refused() -> None:
    broker = Broker()
    broker.largest = 0
    async with connected(broker) as sink:
        with pytest.raises(PermanentDriverError, match=r"max\.message\.bytes"):
            await sink.append("t", 0, payloads(1), ProducerSequence(b"p", 0))


async def test_batches_of_several_partitions_share_a_request() -> None:
    broker = Broker(partitions=5)
    async with connected(broker) as sink, asyncio.TaskGroup() as tasks:
        broker.shut()
        tasks.create_task(sink.append("t", 0, payloads(0), None))
        await broker.came.wait()
        for number in range(5):
            tasks.create_task(sink.append("t", number, payloads(1), None))

        await queued(sink, 4)
        broker.gate.set()

    assert broker.requests == [1, 4, 1], "the second one of partition 0 waits for the first"


async def test_appends_to_one_partition_are_made_one_after_another() -> None:
    broker = Broker()
    async with connected(broker, batch_bytes=50) as sink, asyncio.TaskGroup() as tasks:
        for letter in b"abc":
            tasks.create_task(sink.append("t", 0, Payloads([bytes([letter]) * 40] * 3), None))

    assert b"".join(body[:1] for body in broker.log[0] if body) == b"aaabbbccc"


async def test_an_append_that_was_cancelled_before_it_was_sent_is_not_sent() -> None:
    broker = Broker()
    async with connected(broker) as sink:
        await sink.append("t", 1, payloads(0), ProducerSequence(b"p", 0))
        broker.shut()
        first = asyncio.create_task(sink.append("t", 0, payloads(1), None))
        await broker.came.wait()
        second = asyncio.create_task(sink.append("t", 1, payloads(2), ProducerSequence(b"p", 1)))
        await queued(sink, 1)
        second.cancel()
        await asyncio.wait([second])
        broker.gate.set()
        await first
        broker.acts = [29]
        with pytest.raises(AuthenticationFailed):  # and not OutcomeUnknown: it is known that nothing was sent
            await sink.append("t", 1, payloads(2), ProducerSequence(b"p", 1))

    assert broker.log[1] == [b"0"]


async def test_an_append_that_was_cancelled_under_way_may_be_stored() -> None:
    broker = Broker()
    async with connected(broker) as sink:
        broker.shut()
        append = asyncio.create_task(sink.append("t", 0, payloads(1), ProducerSequence(b"p", 0)))
        await broker.came.wait()
        append.cancel()
        await asyncio.wait([append])
        broker.gate.set()
        broker.acts = [0, 29]
        with pytest.raises(OutcomeUnknown):
            await sink.append("t", 0, payloads(1), ProducerSequence(b"p", 0))

        await sink.append("t", 0, payloads(1), ProducerSequence(b"p", 0))

    assert broker.log[0] == [b"1"]


async def test_closing_gives_everybody_who_waits_an_answer() -> None:
    broker = Broker()
    async with connected(broker) as sink:
        await sink.append("t", 1, payloads(0), ProducerSequence(b"p", 0))
        broker.shut()
        under_way = asyncio.create_task(sink.append("t", 0, payloads(1), None))
        await broker.came.wait()
        waiting = asyncio.create_task(sink.append("t", 1, payloads(2), ProducerSequence(b"p", 1)))
        await queued(sink, 1)
        async with asyncio.timeout(1):
            await sink.close()
            with pytest.raises(OutcomeUnknown):
                await under_way

            with pytest.raises(TransientDriverError):
                await waiting

            with pytest.raises(TransientDriverError, match="closed"):
                await sink.append("t", 1, payloads(3), None)


async def test_an_append_that_turns_to_another_broker_while_the_client_closes_is_not_sent() -> None:
    old, new = Broker(), Broker()
    async with new.serving(), connected(old) as sink:
        old.nodes = new.nodes = {1: old.port, 2: new.port}
        await sink.append("t", 1, payloads(0), None)
        old.shut()
        under_way = asyncio.create_task(sink.append("t", 0, payloads(1), None))
        await old.came.wait()
        behind = asyncio.create_task(sink.append("t", 0, payloads(2), None))
        new.leader = 2
        await sink._leaders._cluster.describe("t", 2)
        await sink.close()
        with pytest.raises(OutcomeUnknown):
            await under_way

        with pytest.raises(TransientDriverError, match="closed"):
            await behind

    assert not new.log[0]


async def test_a_partition_that_appears_later_is_found_and_one_that_does_not_is_unknown() -> None:
    broker = Broker(partitions=1)
    async with connected(broker) as sink:
        await sink.append("t", 0, payloads(0), None)
        with pytest.raises(UnknownTopic, match="0 to 0"):
            await sink.append("t", 1, payloads(1), None)

        broker.partitions = 2
        await sink.append("t", 1, payloads(1), None)

    assert broker.log[1] == [b"1"]


async def test_a_partition_that_has_moved_is_followed_although_its_old_leader_lives() -> None:
    old, new = Broker(), Broker()
    async with new.serving(), connected(old) as sink:
        await sink.append("t", 0, payloads(1), None)
        old.nodes = new.nodes = {1: old.port, 2: new.port}
        old.leader = new.leader = 2
        old.acts = [6] * 20
        await sink.append("t", 0, payloads(2), None)

    assert (old.log[0], new.log[0]) == ([b"1"], [b"2"])


async def test_a_partition_without_a_leader_is_waited_for() -> None:
    broker = Broker()
    broker.leader = -1
    async with connected(broker) as sink:
        append = asyncio.create_task(sink.append("t", 0, payloads(1), None))
        await asyncio.sleep(0.01)
        broker.leader = 1
        await append

    assert broker.log[0] == [b"1"]


async def test_a_topic_is_made_where_that_is_wanted_and_unknown_where_not() -> None:
    broker = Broker()
    broker.exists = False
    async with connected(broker) as sink:
        with pytest.raises(UnknownTopic, match="create=true"):
            await sink.append("t", 0, payloads(1), None)

    async with connected(broker, create=True) as sink:
        await sink.append("t", 0, payloads(1), None)

    assert broker.log[0] == [b"1"]


async def test_a_topic_that_was_there_may_be_missing_for_a_moment() -> None:
    broker = Broker()
    async with connected(broker) as sink:
        await sink.append("t", 0, payloads(0), None)
        broker.exists = False
        sink._leaders.forget("t")
        append = asyncio.create_task(sink.append("t", 0, payloads(1), ProducerSequence(b"p", 0), hurried=True))
        await asyncio.sleep(0.01)
        broker.exists = True
        await append

    assert broker.log[0] == [b"0", b"1"]


async def test_timestamps_are_the_messages_own_or_the_time_of_the_first_attempt() -> None:
    broker = Broker()
    async with connected(broker) as sink:
        broker.acts = ["lose"]
        messages = [OutgoingMessage(b"a", timestamp=5), OutgoingMessage(b"b")]
        sent = await sink.append("t", 0, messages, ProducerSequence(b"p", 0))

    assert [one.timestamp for one in sent] == [5, 1_700_000_000_000]
