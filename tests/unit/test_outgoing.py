"""What callers hand to a producer is brought into one shape or refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rustmq_sdk import ConfigurationError, OutgoingMessage
from rustmq_sdk._core.outgoing import keyless, outgoing, outgoing_batch
from rustmq_sdk._moments import milliseconds
from rustmq_sdk.values import Payloads


def test_text_becomes_utf8_and_bytes_stay() -> None:
    assert outgoing("Grüße", "schlüssel") == OutgoingMessage("Grüße".encode(), "schlüssel".encode())
    assert outgoing(b"\x00", b"k") == OutgoingMessage(b"\x00", b"k")
    assert outgoing(None) == OutgoingMessage(None)
    assert type(outgoing(bytearray(b"ab")).payload) is bytes


@pytest.mark.parametrize("payload", [{"a": 1}, ["a"], 7, 1.5, True])
def test_a_payload_that_is_no_text_is_refused_and_the_way_out_named(payload: object) -> None:
    with pytest.raises(TypeError, match=r"expected the payload as bytes or str.*json\.dumps"):
        outgoing(payload)


def test_a_key_that_is_no_text_is_refused() -> None:
    with pytest.raises(TypeError, match="expected the key as bytes or str, got int"):
        outgoing("x", 7)


@pytest.mark.parametrize("headers", [{"a": b"1"}, [("a", "text")], [("a",)], [(b"a", b"1")], ["ab"]])
def test_headers_of_another_shape_are_refused(headers: Any) -> None:
    with pytest.raises(TypeError, match="pairs"):
        outgoing("x", headers=headers)


def test_headers_keep_their_order_and_repetitions() -> None:
    headers = [("a", b"1"), ("b", None), ("a", b"2")]
    assert outgoing("x", headers=headers).headers == tuple(headers)


@pytest.mark.parametrize(
    ("part", "value", "what"),
    [
        ("partition", "1", "a whole number"),
        ("partition", True, "a whole number"),
        ("timestamp", 1.5, "whole milliseconds since the epoch, a datetime"),
    ],
)
def test_a_partition_or_timestamp_that_is_no_whole_number_is_refused(part: str, value: Any, what: str) -> None:
    with pytest.raises(TypeError, match=f"expected the {part} as {what} or None, got {type(value).__name__}"):
        outgoing("x", **{part: value})


def test_a_timestamp_may_be_a_moment_with_a_time_zone() -> None:
    noon = datetime(2026, 3, 1, 12, 0, 0, 999_999, tzinfo=timezone(timedelta(hours=1)))
    assert outgoing("x", timestamp=noon).timestamp == 1_772_362_800_999
    (sent,) = outgoing_batch([OutgoingMessage(b"x", timestamp=noon)])  # type: ignore[arg-type]
    assert sent.timestamp == 1_772_362_800_999
    with pytest.raises(ConfigurationError, match=r"^timestamp=.*without a time zone.*Add tzinfo"):
        outgoing("x", timestamp=noon.replace(tzinfo=None))


@given(st.integers(min_value=-(10**12), max_value=10**13))
def test_a_moment_is_the_millisecond_it_was_made_of(number: int) -> None:
    moment = datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=number)
    assert milliseconds("timestamp", moment) == milliseconds("timestamp", number) == number


def test_a_negative_partition_is_refused() -> None:
    with pytest.raises(ValueError, match="0 or more"):
        outgoing("x", partition=-1)


def test_a_batch_may_mix_bytes_text_tombstones_and_messages() -> None:
    whole = OutgoingMessage(b"d", b"k", (("h", b"1"),), 3, 5)
    batch = outgoing_batch([b"a", "b", None, OutgoingMessage(b"c"), whole])
    assert batch == [OutgoingMessage(b"a"), OutgoingMessage(b"b"), OutgoingMessage(None), OutgoingMessage(b"c"), whole]
    assert list(outgoing_batch(iter([b"a", b"b"]))) == [OutgoingMessage(b"a"), OutgoingMessage(b"b")]
    assert list(outgoing_batch([])) == []


@pytest.mark.parametrize("batch", [[b"a", None], [OutgoingMessage(b"a"), OutgoingMessage(None)]])
def test_bare_payloads_become_one_column(batch: Any) -> None:
    payloads = outgoing_batch(batch)
    assert isinstance(payloads, Payloads)
    assert list(payloads.bodies) == [b"a", None]
    assert keyless(payloads)


def test_messages_with_keys_stay_as_they_are() -> None:
    batch = [OutgoingMessage(b"a", b"k"), OutgoingMessage(b"b")]
    assert outgoing_batch(batch) == batch
    assert not keyless(outgoing_batch(batch))


@pytest.mark.parametrize("part", [{"headers": [("h", b"1")]}, {"partition": 0}, {"timestamp": 0}, {"key": b""}])
def test_one_message_that_says_more_is_heard_in_a_batch(part: dict[str, Any]) -> None:
    message = outgoing(b"b", **part)
    assert list(outgoing_batch([OutgoingMessage(b"a"), OutgoingMessage(b"b", **part)])) == [
        OutgoingMessage(b"a"),
        message,
    ]


@pytest.mark.parametrize("wrong", [{"payload": 7}, {"key": 7}, {"partition": "x"}, {"headers": ["h"]}])
def test_a_message_in_a_batch_is_checked_as_one_alone(wrong: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        outgoing_batch([b"fine", OutgoingMessage(**{"payload": b"a", **wrong})])


@pytest.mark.parametrize("part", ["payload", "key"])
def test_text_in_one_message_of_many_becomes_utf8_and_a_number_is_refused(part: str) -> None:
    def batch(value: Any) -> list[OutgoingMessage]:
        return [OutgoingMessage(b"a", b"k"), OutgoingMessage(b"b")._replace(**{part: value})]

    assert list(outgoing_batch(batch("ü"))) == batch("ü".encode())
    with pytest.raises(TypeError, match=f"expected the {part}"):
        outgoing_batch(batch(7))


@pytest.mark.parametrize("alone", [b"abc", "abc"])
def test_one_payload_is_no_batch(alone: Any) -> None:
    with pytest.raises(TypeError, match=r"Put it in a list, or use send\(\)"):
        outgoing_batch(alone)


def test_a_key_or_a_partition_says_where_a_message_goes() -> None:
    assert keyless([OutgoingMessage(b"a"), OutgoingMessage(b"b")])
    assert not keyless([OutgoingMessage(b"a"), OutgoingMessage(b"b", key=b"k")])
    assert not keyless([OutgoingMessage(b"a"), OutgoingMessage(b"b", partition=0)])
