"""What the programs for people print."""

from __future__ import annotations

import time

from tests.kills.reckoning import Account


def say(line: str) -> None:
    """To whoever watches, at once."""
    print(line, flush=True)  # noqa: T201  # a program for people


def say_account(account: Account, began: float) -> None:
    """And how long it took; ``began`` by the monotonic clock."""
    say(f"\n{account}\n{'seconds':60s}{time.monotonic() - began:>9.0f}\n")
