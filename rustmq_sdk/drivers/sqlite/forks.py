"""What a forked child must do before anything else: it has its parent's descriptors and none of its threads."""

from __future__ import annotations

import os
from collections.abc import Callable


def after_fork(forget: Callable[[], None]) -> None:
    """Has ``forget`` called in every child that this process forks without exec; it must not block and not raise."""
    if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
        os.register_at_fork(after_in_child=forget)
