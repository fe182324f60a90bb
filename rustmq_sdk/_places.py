"""How ids, log lines and errors name a partition and a message, so that one search finds them all."""

from __future__ import annotations


def place(topic: str, partition: int | None, mark: int | str | None = None) -> str:
    """``topic[partition]@offset``; on queues, which have no partitions, ``topic@`` and the broker's name.

    Args:
        topic: its name.
        partition: its number; None on queues.
        mark: the offset, or the broker's name for the message. None names the partition alone.
    """
    where = topic if partition is None else f"{topic}[{partition}]"
    return where if mark is None else f"{where}@{mark}"
