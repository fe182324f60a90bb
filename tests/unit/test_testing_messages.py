"""Handlers tried without a broker: what they do to a message is what a consumer would have seen."""

from __future__ import annotations

import anyio
import pytest

from rustmq_sdk.errors import ConfigurationError, Reject, Retry
from rustmq_sdk.message import Message, Messages, least_certain
from rustmq_sdk.testing import Acked, Nacked, Rejected, Released, handle, message
from rustmq_sdk.values import AckResult


def test_a_message_has_what_it_was_given() -> None:
    made = message(
        "grüße", key="k", headers=[("a", b"1"), ("a", None)], topic="t", partition=3, offset=7, timestamp=9, attempt=2
    )
    assert (made.payload, made.key, made.headers) == ("grüße".encode(), b"k", (("a", b"1"), ("a", None)))
    assert (made.topic, made.partition, made.offset, made.timestamp, made.attempt) == ("t", 3, 7, 9, 2)
    assert made.id == "t[3]@7"
    assert made.fence is None
    assert made.outcome is None
    assert isinstance(made, Message)


def test_a_payload_of_another_type_is_refused_with_the_way_out() -> None:
    with pytest.raises(TypeError, match=r"json\.dumps"):
        message({"a": 1})  # type: ignore[arg-type]

    with pytest.raises(TypeError, match="key"):
        message(b"", key=1)  # type: ignore[arg-type]


async def test_each_verb_is_recorded() -> None:
    made = [message() for _ in range(4)]
    assert await made[0].ack() is AckResult.RECORDED
    assert await made[1].nack(delay=2, reason="later") is AckResult.RECORDED
    assert await made[2].reject("never") is AckResult.RECORDED
    assert [each.outcome for each in made] == [Acked(), Nacked(2, "later"), Rejected("never"), None]


async def test_a_delay_that_a_consumer_refuses_is_refused() -> None:
    made = message(b"x")
    with pytest.raises(ConfigurationError, match="expected seconds >= 0"):
        await made.nack(delay=-1)

    assert made.outcome is None


async def test_a_durable_ack_is_durable() -> None:
    made = message()
    assert await made.ack(durable=True) is AckResult.DURABLE
    assert made.outcome == Acked()


async def test_the_first_verb_counts() -> None:
    made = message()
    await made.nack()
    assert await made.ack() is AckResult.DUPLICATE
    assert await made.reject() is AckResult.DUPLICATE
    assert made.outcome == Nacked()


async def test_returning_acks_and_raising_nacks() -> None:
    error = ValueError("bad")

    async def handler(each: Message) -> None:
        if each.payload == b"bad":
            raise error

    outcomes = await handle(handler, [message(b"good"), message(b"bad"), message(b"good")])
    assert outcomes == [Acked(), Nacked(), Acked()]
    assert isinstance(outcomes[1], Nacked)
    assert outcomes[1].error is error


async def test_retry_and_reject_are_obeyed() -> None:
    async def handler(each: Message) -> None:
        if each.payload == b"later":
            raise Retry(5, "busy")

        raise Reject("nonsense")

    assert await handle(handler, [message(b"later"), message(b"never")]) == [Nacked(5, "busy"), Rejected("nonsense")]


async def test_what_the_handler_settled_stays() -> None:
    async def handler(each: Message) -> None:
        await each.reject("mine")
        raise ValueError

    assert await handle(handler, message()) == [Rejected("mine")]


async def test_a_plain_handler_works_alike() -> None:
    def handler(each: Message) -> None:
        if not each.payload:
            raise LookupError

    assert await handle(handler, [message(b"x"), message(b"")]) == [Acked(), Nacked()]


async def test_a_cancelled_handler_releases() -> None:
    made = message()

    async def handler(_: Message) -> None:
        await anyio.sleep_forever()

    with anyio.move_on_after(0.01):
        await handle(handler, made)

    assert made.outcome == Released()


async def test_a_batch_is_one_call_and_what_it_left_is_acked() -> None:
    calls: list[int] = []

    async def handler(batch: Messages) -> None:
        calls.append(len(batch))
        await batch[1].nack(delay=1)

    assert await handle(handler, [message() for _ in range(3)], batch=True) == [Acked(), Nacked(1), Acked()]
    assert calls == [3]


async def test_a_batch_that_fails_nacks_what_is_left() -> None:
    async def handler(batch: Messages) -> None:
        await batch[0].ack()
        raise ValueError

    assert await handle(handler, [message() for _ in range(2)], batch=True) == [Acked(), Nacked()]


async def test_a_batch_settles_itself_at_once() -> None:
    async def handler(batch: Messages) -> None:
        assert await batch.ack() is AckResult.RECORDED
        assert await batch.ack() is AckResult.DUPLICATE

    assert await handle(handler, [message() for _ in range(2)], batch=True) == [Acked(), Acked()]


@pytest.mark.parametrize("verb", ["nack", "reject"])
async def test_a_batch_says_the_least_certain_result_of_its_messages(verb: str) -> None:
    made = [message(offset=offset) for offset in range(2)]
    batch = Messages(made, [(each._piece, 0, 1) for each in made])
    await made[0].ack()
    assert await getattr(batch, verb)() is AckResult.RECORDED
    assert await getattr(batch, verb)() is AckResult.DUPLICATE


def test_the_least_certain_result_is_what_the_caller_has_to_reckon_with() -> None:
    assert least_certain([AckResult.DUPLICATE, AckResult.RECORDED, AckResult.STALE]) is AckResult.STALE
    assert least_certain([AckResult.DURABLE, AckResult.PENDING, AckResult.RECORDED]) is AckResult.PENDING
    assert least_certain([AckResult.DUPLICATE, AckResult.DURABLE]) is AckResult.DURABLE
    assert least_certain([]) is AckResult.DUPLICATE
