"""The reference driver: every slot, in this process, checked by the same contract suites as the real ones.

``memory://NAME`` is shared by all who say the same name in this process and on one event loop at a time;
``memory://`` is private. Nothing survives the process. Options: :class:`MemoryOptions`.
"""

from __future__ import annotations

from rustmq_sdk.drivers.memory.broker import MemoryBroker
from rustmq_sdk.drivers.memory.driver import MemoryDriver, forget, open  # noqa: A004
from rustmq_sdk.drivers.memory.options import OPTIONS, MemoryOptions

__all__ = ["OPTIONS", "MemoryBroker", "MemoryDriver", "MemoryOptions", "forget", "open"]
