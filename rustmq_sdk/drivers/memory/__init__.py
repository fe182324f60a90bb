"""The reference driver: every slot, in this process, checked by the same contract suites as the real ones.

``memory://NAME`` is shared by all who say the same name in this process and on one event loop at a time;
``memory://`` is private. Nothing survives the process. Options: :data:`OPTIONS`.
"""

from __future__ import annotations

from rustmq_sdk.drivers.memory.broker import MemoryBroker
from rustmq_sdk.drivers.memory.driver import OPTIONS, MemoryDriver, forget, open  # noqa: A004

__all__ = ["OPTIONS", "MemoryBroker", "MemoryDriver", "forget", "open"]
