"""Sequences of messages that are columns underneath read like lists of messages."""

from __future__ import annotations

import pytest

from rustmq_sdk import OutgoingMessage, SentMessage
from rustmq_sdk.values import Payloads, SentMessages

PARTS = [slice(None), slice(1, 3), slice(2, 2), slice(None, None, -1), slice(0, 9, 2)]
STAMPS = [7, [7, 8, 9, 10]]


def sent(timestamps: list[int] | int) -> tuple[SentMessages, list[SentMessage]]:
    stamps = [timestamps] * 4 if isinstance(timestamps, int) else timestamps
    plain = [SentMessage("t", 2, 10 + at, stamp) for at, stamp in enumerate(stamps)]
    return SentMessages("t", 2, range(10, 14), timestamps), plain


def test_payloads_read_like_messages() -> None:
    plain = [OutgoingMessage(b"a"), OutgoingMessage(None), OutgoingMessage(b"c"), OutgoingMessage(b"")]
    payloads = Payloads([message.payload for message in plain])
    assert list(payloads) == plain
    assert all(type(message) is OutgoingMessage for message in payloads)
    assert [payloads[at] for at in (0, -1)] == [plain[0], plain[-1]]
    assert len(payloads) == 4
    assert OutgoingMessage(None) in payloads
    for part in PARTS:
        assert list(payloads[part]) == plain[part]

    with pytest.raises(IndexError):
        payloads[4]


@pytest.mark.parametrize("timestamps", STAMPS)
def test_sent_messages_read_like_a_list(timestamps: list[int] | int) -> None:
    answer, plain = sent(timestamps)
    assert list(answer) == plain
    assert all(type(message) is SentMessage for message in answer)
    assert [answer[at] for at in (0, -1)] == [plain[0], plain[-1]]
    assert (len(answer), answer.index(plain[2]), plain[1] in answer) == (4, 2, True)
    assert list(reversed(answer)) == plain[::-1]
    assert repr(answer) == repr(plain)
    for part in PARTS:
        assert list(answer[part]) == plain[part]
        assert len(answer[part]) == len(plain[part])

    with pytest.raises(IndexError):
        answer[4]


@pytest.mark.parametrize("timestamps", STAMPS)
def test_sent_messages_equal_what_says_the_same(timestamps: list[int] | int) -> None:
    answer, plain = sent(timestamps)
    assert answer == plain
    assert plain == answer
    assert answer == sent(timestamps)[0]
    assert answer[:2] != plain
    assert answer != [*plain[:3], SentMessage("t", 2, 99, 7)]
    assert answer != tuple(plain)
    assert answer != 5
    with pytest.raises(TypeError, match="unhashable"):
        hash(answer)
