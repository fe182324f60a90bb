"""Ports that are free, and stay the node's own while it is down."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Container, Iterable

# Below the ports that systems hand out to outgoing connections (from 32768 on Linux, from 49152 on macOS). A client
# that keeps trying to reach a killed node would sooner or later be given that very port, and be connected with itself.
RANGE = range(20_000, 32_000)
HOST = "127.0.0.1"
POLL = 0.02


def choose(names: Iterable[str], *, taken: Container[int] = ()) -> dict[str, int]:
    """A free port for each name; at random, so that two checkouts hardly ever want the same.

    Args:
        names: of what listens.
        taken: ports that are somebody's although nobody may listen there yet.
    """
    candidates = (port for port in random.sample(RANGE, k=len(RANGE)) if port not in taken)
    return {name: next(port for port in candidates if is_free(port)) for name in names}


def is_free(port: int, *, within: float = 0.0) -> bool:
    """Whether a server could listen there, now or within so many seconds."""
    deadline = time.monotonic() + within
    while not (free := _can_be_bound(port)) and time.monotonic() < deadline:
        time.sleep(POLL)

    return free


def _can_be_bound(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: connections that have just ended do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False

    return True
