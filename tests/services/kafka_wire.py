"""Two questions to a Kafka node, by its own protocol and without a client: who is there, and who coordinates a group.

An open port says little: it is open seconds before a node serves. https://kafka.apache.org/protocol has the messages.
"""

from __future__ import annotations

import io
import socket
import struct

from tests.services.ports import HOST

METADATA, FIND_COORDINATOR = 3, 10
PATIENCE = 2.0


def brokers(port: int) -> set[int]:
    """The numbers of the brokers that this one knows to be alive, itself included.

    Raises:
        OSError: nobody listens, or nobody answers within two seconds.
        EOFError: it hung up.
    """
    answer = _ask(port, METADATA, 4, struct.pack(">i?", 0, False))
    _throttle, count = _take(answer, ">ii")
    found = set()
    for _ in range(count):
        (number,) = _take(answer, ">i")
        _string(answer)
        _take(answer, ">i")
        _string(answer)
        found.add(number)

    return found


def has_coordinator(port: int, group: str) -> bool:
    """Whether some broker coordinates this group. The first question makes the cluster create its topic of offsets.

    Raises as :func:`coordinator`.
    """
    return coordinator(port, group) is not None


def coordinator(port: int, group: str) -> int | None:
    """The number of the broker that coordinates this group; None while there is none.

    Raises:
        OSError: nobody listens, or nobody answers within two seconds.
        EOFError: it hung up.
    """
    answer = _ask(port, FIND_COORDINATOR, 1, struct.pack(f">h{len(group)}sb", len(group), group.encode(), 0))
    _throttle, error = _take(answer, ">ih")
    _string(answer)
    return None if error else _take(answer, ">i")[0]


def _ask(port: int, question: int, version: int, body: bytes) -> io.BytesIO:
    """The body of the answer, after its correlation id."""
    header = struct.pack(">hhih", question, version, 1, -1)
    with socket.create_connection((HOST, port), timeout=PATIENCE) as connection, connection.makefile("rb") as stream:
        connection.sendall(struct.pack(">i", len(header) + len(body)) + header + body)
        (size,) = _take(stream, ">i")
        answer = io.BytesIO(stream.read(size))

    _take(answer, ">i")
    return answer


def _string(stream: io.BufferedIOBase) -> None:
    (size,) = _take(stream, ">h")
    stream.read(max(size, 0))


def _take(stream: io.BufferedIOBase, form: str) -> tuple[int, ...]:
    size = struct.calcsize(form)
    data = stream.read(size)
    if len(data) < size:
        raise EOFError("the node hung up in the middle of its answer")

    return struct.unpack(form, data)
