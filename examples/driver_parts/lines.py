"""Lines of a file, and how they become a piece of a log."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rustmq_sdk import Message
from rustmq_sdk.message import AnyPiece
from rustmq_sdk.slots import Fetched
from rustmq_sdk.values import Assignment, Gone


class Line(NamedTuple):
    offset: int
    text: bytes
    end: int


def read_lines(path: Path, start: int, max_lines: int, max_bytes: int) -> list[Line]:
    """Whole lines from ``start`` on; the first may be larger than ``max_bytes``, or it would never be read."""
    lines: list[Line] = []
    end = start
    with path.open("rb") as file:
        file.seek(start)
        # A line without its end is still being written.
        while len(lines) < max_lines and (text := file.readline()).endswith(b"\n"):
            if lines and end + len(text) > start + max_bytes:
                break

            lines.append(Line(end, text[:-1], end + len(text)))
            end += len(text)

    return lines


def write_durably(path: Path, content: bytes) -> None:
    """All of it or nothing, and not even a power cut takes it back."""
    with (new := path.with_name(path.name + ".new")).open("wb", buffering=0) as file:
        file.write(content)
        os.fsync(file)

    new.replace(path)


def fetched(assignment: Assignment, lines: Sequence[Line], next_offset: int, gone: Sequence[Gone] = ()) -> Fetched:
    size = sum(len(line.text) for line in lines)
    return Fetched(assignment, [line.offset for line in lines], lines, build, next_offset, size, gone=gone)


def build(lines: Sequence[Line], piece: AnyPiece, first: int) -> list[Message]:
    """Called when it is the messages' turn to be delivered, not when they are fetched."""
    return [Message(line.text, None, (), line.offset, 0, piece, index) for index, line in enumerate(lines, first)]
