from __future__ import annotations

from rustmq_sdk.drivers.kafka.dialects import describe
from rustmq_sdk.letters import PREFIX, as_message
from rustmq_sdk.values import DeadLetter, TopicPartition

LETTER = DeadLetter(
    id="orders[3]@41 shipping",
    payload=b"\xff\x00",
    key=b"key",
    headers=(("own", b"1"), ("own", None)),
    timestamp=1_700_000_000_123,
    tp=TopicPartition("orders", 3),
    offset=41,
    group="shipping",
    reason="ValueError: bad",
    exception_type="builtins.ValueError",
    exception_message="bad",
    stack="Traceback …",
    attempts=5,
    first_failure=1_700_000_001_000,
    last_failure=1_700_000_002_000,
)
BARE = LETTER._replace(
    tp=TopicPartition("queue", None), offset=None, group=None, exception_type="", exception_message="", stack=""
)


def test_our_dialect_is_that_of_every_driver() -> None:
    assert describe(LETTER, ["rustmq"]) == as_message(LETTER)


def test_springs_dialect_has_springs_names_and_its_numbers_in_binary() -> None:
    message = describe(LETTER, ["spring"])
    assert (message.payload, message.key) == (LETTER.payload, LETTER.key)
    assert message.headers == (
        *LETTER.headers,
        ("kafka_dlt-original-topic", b"orders"),
        ("kafka_dlt-original-partition", b"\x00\x00\x00\x03"),
        ("kafka_dlt-original-offset", b"\x00\x00\x00\x00\x00\x00\x00\x29"),
        ("kafka_dlt-original-timestamp", (1_700_000_000_123).to_bytes(8, "big")),
        ("kafka_dlt-original-consumer-group", b"shipping"),
        ("kafka_dlt-exception-fqcn", b"builtins.ValueError"),
        ("kafka_dlt-exception-message", b"bad"),
        ("kafka_dlt-exception-stacktrace", "Traceback …".encode()),
    )


def test_kip_1191_has_kafkas_names_and_text() -> None:
    assert describe(LETTER, ["kip-1191"]).headers == (
        *LETTER.headers,
        ("__dlq.errors.topic", b"orders"),
        ("__dlq.errors.partition", b"3"),
        ("__dlq.errors.offset", b"41"),
        ("__dlq.errors.group", b"shipping"),
        ("__dlq.errors.delivery.count", b"5"),
        ("__dlq.errors.message", b"ValueError: bad"),
    )


def test_several_dialects_stand_after_each_other_and_the_own_headers_once() -> None:
    several = describe(LETTER, ["kip-1191", "rustmq", "spring"]).headers
    alone = [describe(LETTER, [dialect]).headers[2:] for dialect in ("kip-1191", "rustmq", "spring")]
    assert several == (*LETTER.headers, *alone[0], *alone[1], *alone[2])


def test_what_is_unknown_is_left_out() -> None:
    spring = dict(describe(BARE, ["spring"]).headers)
    assert {name for name in spring if name.startswith("kafka_")} == {
        "kafka_dlt-original-topic",
        "kafka_dlt-original-timestamp",
        "kafka_dlt-exception-message",
    }
    assert spring["kafka_dlt-exception-message"] == b"ValueError: bad", "the reason, where there was no exception"
    kip = dict(describe(BARE, ["kip-1191"]).headers)
    assert {name for name in kip if name.startswith("__")} == {
        "__dlq.errors.topic",
        "__dlq.errors.delivery.count",
        "__dlq.errors.message",
    }


def test_a_dead_letter_that_dies_again_has_one_exception_in_springs_dialect_and_both_origins() -> None:
    again = LETTER._replace(headers=describe(LETTER, ["spring"]).headers, tp=TopicPartition("orders.dead", 0))
    headers = list(describe(again, ["spring"]).headers)
    assert [value for name, value in headers if name == "kafka_dlt-original-topic"] == [b"orders", b"orders.dead"]
    assert len([name for name, _ in headers if name == "kafka_dlt-exception-fqcn"]) == 1


def test_a_dead_letter_that_dies_again_says_once_where_it_was_in_the_dialect_of_kip_1191() -> None:
    again = LETTER._replace(headers=describe(LETTER, ["kip-1191"]).headers, tp=TopicPartition("orders.dead", 0))
    topics = [value for name, value in describe(again, ["kip-1191"]).headers if name == "__dlq.errors.topic"]
    assert topics == [b"orders.dead"]


def test_a_letter_may_have_any_text_in_it() -> None:
    broken = LETTER._replace(exception_message="no file \udcff", reason="\ud800", stack="\udc80")
    for dialect in ("rustmq", "spring", "kip-1191"):
        assert describe(broken, [dialect]).payload == LETTER.payload

    message = as_message(broken)
    assert dict(message.headers)[PREFIX + "exception-message"] == rb"no file \udcff"
