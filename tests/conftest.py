"""Every async test runs on both loops; a module or class marked ``virtual_time`` in time that jumps.

Servers are there for the asking, by the fixtures of ``tests/services/plugin.py``.
"""

from __future__ import annotations

from typing import Any

import pytest

pytest_plugins = ["rustmq_sdk.testing.pytest_plugin", "tests.services.plugin"]


@pytest.fixture(scope="class")
def anyio_backend(both_loops: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    return both_loops
