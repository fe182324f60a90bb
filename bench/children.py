"""Contenders in processes of their own: none inherits another one's heap, caches or garbage."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


class ChildFailed(Exception):
    """A measured process ended badly; the text is the end of what it said."""


class Child:
    """``function(**arguments)`` in a fresh interpreter, which has begun when this returns.

    Args:
        function: as ``package.module:name``; what it returns must fit into JSON.
        arguments: what it is called with; must fit into JSON.
    """

    def __init__(self, function: str, **arguments: Any) -> None:
        self._function = function
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.children", function, json.dumps(arguments)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def line(self) -> str:
        """The next line that it says before it is done; see :func:`say`.

        Raises:
            ChildFailed: it has ended instead.
        """
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        if not said:
            self.result(timeout=10)
            raise ChildFailed(f"{self._function} ended without a word")

        return said.strip()

    def result(self, *, timeout: float) -> Any:
        """What the function has returned; ends the process if it takes longer than ``timeout`` seconds.

        Raises:
            ChildFailed: it raised, was ended, or took too long.
        """
        try:
            said, complained = self._process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired as late:
            self.end()
            raise ChildFailed(f"{self._function} was not done after {timeout:.0f} s") from late

        if self._process.returncode:
            last = complained.strip().splitlines()[-1:] or [f"exit status {self._process.returncode}"]
            raise ChildFailed(f"{self._function}: {last[0]}")

        return json.loads(said.strip().splitlines()[-1])

    def end(self) -> None:
        """Kills it if it still runs."""
        self._process.kill()
        self._process.communicate()


def run(function: str, *, timeout: float = 600, **arguments: Any) -> Any:
    """Runs a function in a process of its own and returns what it returned."""
    child = Child(function, **arguments)
    try:
        return child.result(timeout=timeout)
    except BaseException:
        child.end()
        raise


def say(word: str) -> None:
    """In a child: tells whoever has started it."""
    print(word, flush=True)


def _end_with(parent: int) -> None:
    """A measurement that was killed leaves nobody behind who disturbs the next one."""
    while os.getppid() == parent:
        time.sleep(1)

    os._exit(1)


def _main(function: str, arguments: str) -> None:
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    module, _, name = function.partition(":")
    print(json.dumps(getattr(importlib.import_module(module), name)(**json.loads(arguments))))


if __name__ == "__main__":
    _main(*sys.argv[1:])
