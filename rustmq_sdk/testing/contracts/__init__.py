"""One suite of tests for each slot. A driver that passes them may be trusted with the promises of the runtime.

Subclass a suite in a test module of your own, and give it a ``driver``::

    pytest_plugins = ["rustmq_sdk.testing.pytest_plugin"]     # in the top-level conftest.py

    class TestPigeonLog(LogSourceContract):
        @pytest.fixture
        async def driver(self):
            async with pigeon.open("pigeon://loft") as driver:
                yield driver

Tests look at the driver's ``capabilities``: each one claimed is tested, each one not claimed has to say
``Unsupported``. What only the backend's owner can do (remove old records, expire a member) is a method to override; as
long as it is not, the tests that need it are skipped and say so.
"""

from __future__ import annotations

from rustmq_sdk.testing.contracts.admin import AdminContract
from rustmq_sdk.testing.contracts.dead_letters import DeadLetterQueueContract
from rustmq_sdk.testing.contracts.log_groups import LogGroupsContract
from rustmq_sdk.testing.contracts.log_offsets import LogOffsetsContract
from rustmq_sdk.testing.contracts.log_reading import LogReadingContract
from rustmq_sdk.testing.contracts.log_waiting import LogWaitingContract
from rustmq_sdk.testing.contracts.queue_source import QueueSourceContract
from rustmq_sdk.testing.contracts.sink import SinkContract
from rustmq_sdk.testing.contracts.state_store import StateStoreContract


class LogSourceContract(LogReadingContract, LogWaitingContract, LogOffsetsContract, LogGroupsContract):
    """Tests all that :class:`~rustmq_sdk.slots.LogSubscription` promises."""


__all__ = [
    "AdminContract",
    "DeadLetterQueueContract",
    "LogSourceContract",
    "QueueSourceContract",
    "SinkContract",
    "StateStoreContract",
]
