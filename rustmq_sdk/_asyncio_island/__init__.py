"""The island: where asyncio-only clients live, so that they can be used from trio and from asyncio alike."""

from __future__ import annotations

from rustmq_sdk._asyncio_island.crossing import IslandClosed, StrayCancellation
from rustmq_sdk._asyncio_island.island import Island

__all__ = ["Island", "IslandClosed", "StrayCancellation"]
