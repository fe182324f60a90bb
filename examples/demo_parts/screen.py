"""What a person sees: lines that stay, and on a terminal one line below them that moves."""

from __future__ import annotations

import sys
from shutil import get_terminal_size
from typing import TextIO

import anyio

from demo_parts.tally import Tally

WIPE = "\r\x1b[K"
BAR = 24


class Screen:
    """Writes to ``out``; nothing moves there unless it is a terminal.

    Args:
        tally: what to show.
        total: events to come.
        out: where to.
    """

    def __init__(self, tally: Tally, total: int, out: TextIO = sys.stdout) -> None:
        self._tally = tally
        self._total = total
        self._out = out
        self._moves = out.isatty()

    def say(self, text: str) -> None:
        """A line that stays, above the one that moves."""
        self._out.write(f"{WIPE}{text}\n{self._progress()}" if self._moves else f"{text}\n")
        self._out.flush()

    async def follow(self) -> None:
        """Keeps the progress up to date until cancelled: ten times a second on a terminal, else a line a second."""
        while True:
            self._out.write(f"{WIPE}{self._progress()}" if self._moves else f"{self._progress()}\n")
            self._out.flush()
            await anyio.sleep(0.1 if self._moves else 1.0)

    def end(self) -> None:
        """Takes the line that moves away."""
        if self._moves:
            self._out.write(WIPE)
            self._out.flush()

    def _progress(self) -> str:
        tally = self._tally
        done = BAR * tally.settled // self._total
        text = (
            f"[{'#' * done}{'.' * (BAR - done)}] {tally.settled:5,} of {len(tally.published):5,} published, "
            f"{tally.alarms} alarms, {tally.retried} retries, {len(tally.dead)} dead letters"
        )
        # A line that wraps cannot be wiped.
        return text[: get_terminal_size().columns - 1] if self._moves else text


def table(tally: Tally, *, lag: int, seconds: float) -> str:
    """The account at the end."""
    given_back = tally.redelivered - tally.retried
    rows = (
        ("published", len(tally.published), "durably in the log"),
        ("handled", len(tally.handled), f"{tally.alarms} of them raised an alarm"),
        ("dead-lettered", len(tally.dead), "explosions and quarry blasts: not earthquakes"),
        ("retried", tally.retried, "the look-up failed; tried again after a backoff"),
        ("redelivered", tally.redelivered, f"the retries, and {given_back} given back by the cancelled consumer"),
        ("duplicates", tally.duplicates, "handled more than once"),
        ("lost", len(tally.lost), "published, and neither handled nor dead-lettered"),
        ("lag", lag, "as a new member of the group finds it"),
    )
    lines = [f"{name:>14}  {count:6,}  {meaning}" for name, count, meaning in rows]
    return "\n".join([*lines, f"{'seconds':>14}  {seconds:6.1f}"])
