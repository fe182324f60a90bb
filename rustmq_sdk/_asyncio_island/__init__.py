"""The island: where asyncio-only clients live, so that they can be used from trio and from asyncio alike.

::

    self.island = Island("rustmq-nats", thread=options.thread)
    await self.island.__aenter__()                            # with the driver
    await self.island.run(client.connect, servers)            # from any loop
    source = across(NatsSource(client), self.island)          # a whole source, written for asyncio
    await self.island.__aexit__()                             # last

What crosses to a thread costs about 50 us from asyncio and 80 us from trio, there and back, one call at a time, and 20
to 25 us where a hundred are under way, because what comes together shares a wake-up; on the caller's own loop a call
costs 0.5 us (CPython 3.11, two shared cores under load; ``scripts/bench bench/bench_island.py``). So a driver crosses
once a batch, never once a message.
"""

from __future__ import annotations

from rustmq_sdk._asyncio_island.island import Island
from rustmq_sdk._asyncio_island.source import across
from rustmq_sdk._asyncio_island.user_loop import UserLoop

__all__ = ["Island", "UserLoop", "across"]
