"""The island: where asyncio-only clients live, so that they can be used from trio and from asyncio alike."""

from __future__ import annotations

from rustmq_sdk._asyncio_island.crossing import IslandClosed, StrayCancellation
from rustmq_sdk._asyncio_island.home import Home
from rustmq_sdk._asyncio_island.island import Island
from rustmq_sdk._asyncio_island.source import across

__all__ = ["Home", "Island", "IslandClosed", "StrayCancellation", "across"]
