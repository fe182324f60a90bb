from __future__ import annotations

import zlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rustmq_sdk.drivers.sqlite import packing
from rustmq_sdk.drivers.sqlite.codec import DamagedBatch, Record, Records, build, decode, joined
from rustmq_sdk.drivers.sqlite.packing import Packed, encode, pack, rows_of
from rustmq_sdk.drivers.sqlite.packing import joined as packed_together
from rustmq_sdk.testing.deliveries import Deliveries
from rustmq_sdk.values import Assignment, OutgoingMessage, TopicPartition

bodies = st.none() | st.binary(max_size=20)
headers = st.lists(st.tuples(st.text(max_size=5), bodies), max_size=3).map(tuple)
timestamps = st.none() | st.integers(-(2**63), 2**63 - 1)
messages = st.lists(
    st.builds(OutgoingMessage, payload=bodies, key=bodies, headers=headers, timestamp=timestamps),
    min_size=1,
    max_size=20,
)
NOW = 1_700_000_000_000


def as_sent(message: OutgoingMessage, offset: int) -> Record:
    stamp = NOW if message.timestamp is None else message.timestamp
    return Record(message.payload, message.key, tuple(message.headers), offset, stamp)


@given(messages, st.integers(0, 2**40))
def test_what_is_packed_comes_back(sent: list[OutgoingMessage], base: int) -> None:
    batch = encode(pack(sent), NOW)
    records = decode(base, len(sent), batch.data, batch.crc)
    assert list(records) == [as_sent(message, base + at) for at, message in enumerate(sent)]
    stamps = [record.timestamp for record in records]
    assert (batch.length, batch.first_ms, batch.last_ms) == (len(sent), min(stamps), max(stamps))
    assert pack(sent).size == records.size() == sum(records.sizes())
    assert all(batch.largest >= len(message.payload or b"") for message in sent)


@given(messages, messages)
def test_what_is_packed_together_is_as_if_it_had_been_sent_together(
    sent: list[OutgoingMessage], more: list[OutgoingMessage]
) -> None:
    together, at_once = packed_together([pack(sent), pack(more)]), pack(sent + more)
    assert encode(together, NOW).data == encode(at_once, NOW).data
    assert together.size == at_once.size


@given(messages)
def test_rows_follow_one_another(sent: list[OutgoingMessage]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "ROW_MESSAGES", 3)
        patch.setattr(packing, "ROW_BYTES", 30)
        rows: list[Packed] = list(rows_of(pack(sent)))

    assert all(0 < row.length <= 3 for row in rows)
    assert encode(packed_together(rows), NOW).data == encode(pack(sent), NOW).data


@given(messages)
def test_messages_are_built_alike_from_columns_and_from_records(sent: list[OutgoingMessage]) -> None:
    batch = encode(pack(sent), NOW)
    records = decode(7, len(sent), batch.data, batch.crc)
    state = Deliveries(len(sent) + 3, Assignment(TopicPartition("t", 0), 1))
    from_columns, from_records = build(records, state, 3), build(list(records), state, 3)
    for at, (one, other) in enumerate(zip(from_columns, from_records, strict=True)):
        fields = (one.payload, one.key, one.headers, one.offset, one.timestamp, one._index)
        assert fields == (other.payload, other.key, other.headers, other.offset, other.timestamp, other._index)
        assert fields == (*as_sent(sent[at], 7 + at), 3 + at)
        assert one._piece is other._piece is state


@given(messages, st.slices(20))
def test_a_slice_is_what_it_is_of_a_list(sent: list[OutgoingMessage], at: slice) -> None:
    batch = encode(pack(sent), NOW)
    records = decode(7, len(sent), batch.data, batch.crc)
    assert list(records[at]) == list(records)[at]
    assert records[-1] == list(records)[-1]
    assert list(joined([records.cut(0, len(sent) // 2), records.cut(len(sent) // 2, len(sent))])) == list(records)


@given(st.binary(max_size=200), st.integers(0, 10))
@example(b"\x94\x91\xc0\xc0\xc0\x00", 2)
@example(b"\x91" * 5000, 1)
def test_random_bytes_are_a_named_error_or_a_batch_of_that_length(data: bytes, expected: int) -> None:
    records: Records | DamagedBatch
    try:
        records = decode(5, expected, data, None)
    except DamagedBatch as error:
        records = error

    assert "offset 5" in str(records) if isinstance(records, DamagedBatch) else len(records) == expected

    with pytest.raises(DamagedBatch, match="checksum"):
        decode(5, expected, data, zlib.crc32(data) ^ 1)


@given(messages, st.data())
def test_one_flipped_bit_is_found(sent: list[OutgoingMessage], data: st.DataObject) -> None:
    batch = encode(pack(sent), NOW)
    damaged = bytearray(batch.data)
    bit = data.draw(st.integers(0, len(damaged) * 8 - 1))
    damaged[bit // 8] ^= 1 << bit % 8
    with pytest.raises(DamagedBatch, match="checksum"):
        decode(0, len(sent), bytes(damaged), batch.crc)


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (OutgoingMessage("text"), TypeError),  # type: ignore[arg-type]
        (OutgoingMessage(b"", key=7), TypeError),  # type: ignore[arg-type]
        (OutgoingMessage(bytearray(b"changing")), TypeError),  # type: ignore[arg-type]
        (OutgoingMessage(b"", headers=(("name", "text"),)), TypeError),  # type: ignore[arg-type]
        (OutgoingMessage(b"", headers=((b"name", b""),)), TypeError),  # type: ignore[arg-type]
        (OutgoingMessage(b"", timestamp=1.5), ValueError),  # type: ignore[arg-type]
        (OutgoingMessage(b"", timestamp=False), ValueError),
        (OutgoingMessage(b"", timestamp=2**63), ValueError),
    ],
)
def test_what_nobody_could_read_is_not_stored(message: OutgoingMessage, error: type[Exception]) -> None:
    with pytest.raises(error):
        pack([OutgoingMessage(b"good"), message])
