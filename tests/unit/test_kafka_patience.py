from __future__ import annotations

from rustmq_sdk.drivers.kafka.failures import NotSent
from rustmq_sdk.drivers.kafka.patience import LONGEST_PAUSE, Patience
from rustmq_sdk.testing import run


def test_a_call_that_has_the_time_is_tried_however_often_it_failed() -> None:
    async def goes_on() -> float:
        patience = Patience("sink", "append", lambda: False)
        async with patience.at_most(3000):
            for _ in range(2000):
                await patience.pause(NotSent("nobody listens"))

        return patience.waited

    assert 1990 * LONGEST_PAUSE < run(goes_on, backend="asyncio") < 2000 * LONGEST_PAUSE
