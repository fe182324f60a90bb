"""Stages for the promises: brokers in memory, log and queue, that no other test sees."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rustmq_sdk.drivers import BUILT_IN, BuiltIn
from tests.promises.stage import Stage


@pytest.fixture(autouse=True)
def scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BUILT_IN, "stage", BuiltIn("tests.promises.stage:open"))


@pytest.fixture
def stage() -> Iterator[Stage]:
    """A log."""
    stage = Stage()
    yield stage
    stage.close()


@pytest.fixture
def queue() -> Iterator[Stage]:
    """A queue."""
    stage = Stage("queue")
    yield stage
    stage.close()


@pytest.fixture(params=["log", "queue"])
def either(request: pytest.FixtureRequest) -> Iterator[Stage]:
    """A log, and then a queue: for promises that hold for both."""
    stage = Stage(request.param)
    yield stage
    stage.close()
