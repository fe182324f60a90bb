"""What a person sees: lines that stay, and on a terminal one line below them that moves."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from shutil import get_terminal_size
from typing import TextIO

import anyio

WIPE = "\r\x1b[K"
BAR = 12


class Screen:
    """Writes to ``out``; nothing moves there unless it is a terminal.

    Args:
        progress: what to say in the line that moves.
        out: where to.
    """

    def __init__(self, progress: Callable[[], str], out: TextIO = sys.stdout) -> None:
        self._progress = progress
        self._out = out
        self._moves = out.isatty()

    def say(self, text: str) -> None:
        """A line that stays, above the one that moves."""
        self._write(f"{WIPE}{text}\n{self._line()}" if self._moves else f"{text}\n")

    async def follow(self) -> None:
        """Keeps the progress up to date until cancelled: ten times a second on a terminal, else a line a second."""
        while True:
            self._write(f"{WIPE}{self._line()}" if self._moves else f"{self._line()}\n")
            await anyio.sleep(0.1 if self._moves else 1.0)

    def end(self) -> None:
        """Takes the line that moves away."""
        if self._moves:
            self._write(WIPE)

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()

    def _line(self) -> str:
        text = self._progress()
        # A line that wraps cannot be wiped.
        return text[: get_terminal_size().columns - 1] if self._moves else text


def bar(done: int, total: int) -> str:
    length = BAR * done // total
    return f"[{'#' * length}{'.' * (BAR - length)}]"


def spell(partitions: Sequence[int]) -> str:
    return "+".join(map(str, partitions))
