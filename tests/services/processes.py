"""Processes by what they run, never by a number that was written down.

A pid in a file is a guess: after a reboot, or a day, it is somebody else's. The command line is not. Every node is
started with the path of its own configuration as an argument, and whoever runs that program with that argument is the
node, no matter who started it, when, and whether that one lived to write anything down.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

POLL = 0.02
GRACE = 20.0
# In /proc/PID/stat, counted from after the name, which may have spaces in it. See proc(5).
STATE, THREADS = 0, 17


def find(program: str, config: Path) -> list[int]:
    """The processes that run this program (by its file's name) with this configuration as an argument of its own."""
    name = os.path.basename(program)  # noqa: PTH119 - as a command line has it
    return [
        pid
        for pid, words in _command_lines()
        if words and os.path.basename(words[0]) == name and str(config) in words[1:]  # noqa: PTH119
    ]


def start(command: list[str], config: Path, log: Path) -> None:
    """Starts a process that neither Ctrl-C nor the end of this one reaches.

    Not by ``subprocess.Popen``: that warns, or fails a test, when it is forgotten while the process runs.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    pid = os.posix_spawn(
        command[0],
        command,
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        setsigmask=[],
        setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGHUP],
    )
    # The kernel lets this process go on a moment before the new one has its command line; a long one on a busy machine.
    while pid not in find(command[0], config) and not _has_ended(pid):
        time.sleep(POLL)


def stop(program: str, config: Path, how: signal.Signals) -> bool:
    """Ends what ``find`` finds and waits until it is gone; after 20 seconds by SIGKILL. Whether there was any."""
    found = find(program, config)
    _tell(found, how)
    deadline = time.monotonic() + GRACE
    while not all(_is_over(pid) for pid in found):
        if time.monotonic() > deadline:
            _tell(found, signal.SIGKILL)

        time.sleep(POLL)

    return bool(found)


def _tell(pids: Sequence[int], how: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            # It leads a group, as start() has seen to, and its children, if it has any, go with it.
            os.killpg(pid, how) if os.getpgid(pid) == pid else os.kill(pid, how)


def _has_ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _is_over(pid: int) -> bool:
    """Whether nothing is left of a process but, perhaps, its number.

    Its command line goes before its sockets do. Who starts a node again in between finds its port taken.
    """
    with suppress(ChildProcessError):
        # A child stays in the table of processes until its parent has asked.
        os.waitpid(pid, os.WNOHANG)

    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True

    # Somebody else's child may stay there for good, in a container where nobody asks. With its other threads gone: one
    # that is in the middle of an fsync keeps all files and sockets open for as long as that takes.
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return fields[STATE] in "ZX" and int(fields[THREADS]) <= 1

    return False


def _command_lines() -> Iterator[tuple[int, list[str]]]:
    if not Path("/proc/self/cmdline").exists():
        yield from _command_lines_of_ps()
        return

    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            # A process may end while it is looked at. One that has ended and was not buried has no command line.
            with suppress(OSError), open(f"/proc/{entry.name}/cmdline", "rb") as line:  # noqa: PTH123 - some hundred
                yield int(entry.name), os.fsdecode(line.read()).split("\0")


def _command_lines_of_ps() -> Iterator[tuple[int, list[str]]]:
    """Where there is no /proc, as on macOS. Paths with a space in them are not recognised there."""
    shown = subprocess.run(["ps", "-axww", "-o", "pid=,command="], capture_output=True, text=True, check=True)
    for line in shown.stdout.splitlines():
        pid, *words = line.split()
        yield int(pid), words
