"""Tests of a handler, without a broker and without waiting: ``pytest examples/09_testing_a_handler.py``.

``message`` makes a message as a consumer would deliver it, ``handle`` settles it as ``run()`` would, and the outcome
says how. Run as a program it hands itself to pytest.
"""

from __future__ import annotations

import os
import sys

import pytest

import rustmq_sdk
from rustmq_sdk.testing import Acked, Nacked, Rejected, handle, message


async def charge(order: rustmq_sdk.Message) -> None:
    """The handler under test."""
    amount = order.json()["amount"]
    if amount < 0:
        raise rustmq_sdk.Reject("nobody charges less than nothing")

    if amount > 1000 and order.attempt < 3:
        raise rustmq_sdk.Retry(delay=60, reason="large amounts wait for approval")


@pytest.fixture
def anyio_backend() -> str:
    return os.getenv("BACKEND", "asyncio")


@pytest.mark.anyio
async def test_an_amount_is_charged() -> None:
    assert await handle(charge, message('{"amount": 20}')) == [Acked()]


@pytest.mark.anyio
async def test_a_negative_amount_goes_to_the_dead_letters() -> None:
    assert await handle(charge, message('{"amount": -1}')) == [Rejected("nobody charges less than nothing")]


@pytest.mark.anyio
async def test_a_large_amount_waits_for_approval_twice() -> None:
    orders = [message('{"amount": 5000}', attempt=attempt) for attempt in (1, 2, 3)]
    waits = Nacked(60, "large amounts wait for approval")
    assert await handle(charge, orders) == [waits, waits, Acked()]


if __name__ == "__main__":
    os.execv(sys.executable, [sys.executable, "-m", "pytest", "-q", __file__])
