from __future__ import annotations

from typing import Any

import pytest
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st

from rustmq_sdk.drivers.kafka.encoding import CODECS, NOBODY, Answer, Identity, cut, encode
from rustmq_sdk.drivers.kafka.lines import PRODUCERS, REMEMBERED, Line, Lines, Pending
from rustmq_sdk.values import OutgoingMessage, Payloads, ProducerSequence, SentMessages

bodies = st.none() | st.binary(max_size=200)
messages = st.builds(
    OutgoingMessage,
    payload=bodies,
    key=bodies,
    headers=st.lists(st.tuples(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), bodies), max_size=3),
    timestamp=st.none() | st.integers(0, 2**40),
)


def decoded(data: bytes) -> list[tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]], int]]:
    (batch,) = batches(data)
    return [(record.value, record.key, list(record.headers), record.timestamp) for record in batch]


def batches(data: bytes) -> list[Any]:
    records = MemoryRecords(data)
    found: list[Any] = []
    while records.has_next():
        batch = records.next_batch()
        assert batch.validate_crc()
        found.append(batch)

    return found


@given(st.lists(messages, min_size=1, max_size=20))
def test_what_is_encoded_is_what_is_read(outgoing: list[OutgoingMessage]) -> None:
    data = encode(outgoing, codec=CODECS["none"], now_ms=77, identity=NOBODY, sequence=-1)
    assert decoded(data) == [
        (one.payload, one.key, list(one.headers), 77 if one.timestamp is None else one.timestamp) for one in outgoing
    ]


def test_payloads_alone_are_encoded_as_messages_are() -> None:
    payloads = Payloads([b"a", None, b"", b"c" * 1000])
    for codec in CODECS.values():
        kind: dict[str, Any] = {"codec": codec, "now_ms": 5, "identity": Identity(7, 1), "sequence": 9}
        assert encode(payloads, **kind) == encode(list(payloads), **kind)


def test_a_batch_carries_its_producer_and_number() -> None:
    (batch,) = batches(encode(Payloads([b"x"]), codec=0, now_ms=1, identity=Identity(7, 2), sequence=40))
    assert (batch.producer_id, batch.producer_epoch, batch.base_sequence) == (7, 2, 40)


@pytest.mark.parametrize(
    "wrong", [OutgoingMessage(b"", headers=[("\udcff", b"")]), OutgoingMessage(b"", timestamp=2**70)]
)
def test_what_kafka_cannot_store_is_an_error_of_value(wrong: OutgoingMessage) -> None:
    with pytest.raises((ValueError, OverflowError)):
        encode([wrong], codec=0, now_ms=1, identity=NOBODY, sequence=-1)


@given(st.lists(st.integers(0, 300), min_size=1, max_size=40), st.integers(1, 1000))
def test_cut_keeps_all_in_order_and_below_the_limit(sizes: list[int], most: int) -> None:
    payloads = [b"x" * size for size in sizes]
    parts = cut(Payloads(payloads), most)
    assert [index for part in parts for index in part] == list(range(len(sizes)))
    assert all(parts), "none is empty"
    for part in parts:
        assert len(part) == 1 or sum(sizes[index] + 21 for index in part) <= most

    assert cut([OutgoingMessage(payload, timestamp=1) for payload in payloads], most) == parts, "whatever the time"


def test_a_large_message_does_not_take_its_neighbours_with_it() -> None:
    assert cut(Payloads([b"a", b"b" * 500, b"c"]), 100) == [range(1), range(1, 2), range(2, 3)]


def test_numbers_begin_with_the_first_append_and_wrap_as_kafkas_do() -> None:
    line = Line()
    assert [line.number(number) for number in (10, 11, 10 + 2**31 - 1, 10 + 2**31)] == [0, 1, 2**31 - 1, 0]
    line.start_over()
    assert line.number(12) == 0


def test_an_append_that_goes_on_keeps_its_time_and_what_is_stored() -> None:
    def start(now_ms: int) -> Pending:
        return Pending(now_ms, [range(3, 5), range(3)])

    line = Line()
    pending = line.begin(0, 5, lambda: start(100))
    pending.settle(Answer(0, 7))
    assert line.begin(0, 5, lambda: start(200)) is pending
    assert (pending.left, pending.done) == ([range(3, 5)], [(range(3), Answer(0, 7))])
    assert line.begin(0, 6, lambda: start(200)).now_ms == 200


def test_messages_that_are_refused_leave_no_gap_in_the_numbers() -> None:
    line = Line()
    assert line.number(10) == 0
    line.skip(2)
    assert line.number(13) == 1


def test_as_many_answers_are_remembered_as_a_broker_remembers_batches() -> None:
    line = Line()
    for first in range(REMEMBERED + 1):
        line.begin(first, 1, lambda: Pending(0, [range(1)]))
        line.finish(first, 1, SentMessages("t", 0, range(first, first + 1), 0))

    assert line.answered(0, 1) is None
    assert line.answered(1, 1) == SentMessages("t", 0, range(1, 2), 0)
    assert line.answered(1, 2) is None


def test_lines_of_producers_that_are_gone_are_forgotten() -> None:
    lines = Lines()
    first = lines.of("t", 0, ProducerSequence(b"0", 0), now=0.0)
    assert lines.of("t", 0, ProducerSequence(b"0", 5), now=0.0) is first
    assert lines.of("t", 1, ProducerSequence(b"0", 0), now=0.0) is not first
    for number in range(1, PRODUCERS + 1):
        lines.of("t", 0, ProducerSequence(b"%d" % number, 0), now=0.0)

    assert lines.of("t", 0, ProducerSequence(b"0", 0), now=0.0) is not first
