"""The test kit: for tests of programs that use this package, and for tests of drivers.

* :func:`message` and :func:`handle`: handlers tried without a broker.
* :func:`run`, :func:`virtual_time`: time that jumps, schedules that repeat, on both loops.
* :class:`FaultPlan`, :class:`FaultyDriver`: what can go wrong, going wrong on purpose.
* :mod:`rustmq_sdk.testing.contracts`: a suite for each slot, for those who write drivers (needs pytest).
* ``rustmq_sdk.testing.pytest_plugin``: opt-in fixtures.
"""

from __future__ import annotations

from rustmq_sdk.testing.clock import BACKENDS, virtual_time
from rustmq_sdk.testing.faults import KINDS, OPERATIONS, Fault, FaultPlan
from rustmq_sdk.testing.faulty import FaultyDriver
from rustmq_sdk.testing.listener import RecordingListener
from rustmq_sdk.testing.messages import Acked, Nacked, Outcome, Rejected, Released, handle, message
from rustmq_sdk.testing.schedules import run

__all__ = [
    "BACKENDS",
    "KINDS",
    "OPERATIONS",
    "Acked",
    "Fault",
    "FaultPlan",
    "FaultyDriver",
    "Nacked",
    "Outcome",
    "RecordingListener",
    "Rejected",
    "Released",
    "handle",
    "message",
    "run",
    "virtual_time",
]
