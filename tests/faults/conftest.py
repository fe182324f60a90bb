"""The stages of the promises serve the races as well."""

from __future__ import annotations

from tests.promises.conftest import queue, scheme, stage

__all__ = ["queue", "scheme", "stage"]
