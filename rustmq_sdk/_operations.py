"""What a driver was asked to do, in the words of those who read its errors."""

from __future__ import annotations

_WORDS = {
    ("driver", "connect"): "connecting",
    ("source", "subscribe"): "subscribing",
    ("source", "run"): "consuming",
    ("source", "join"): "joining the group",
    ("source", "rebalance"): "sharing partitions out",
    ("source", "assign"): "taking partitions over",
    ("source", "fetch"): "fetching messages",
    ("source", "read"): "reading messages again",
    ("source", "commit"): "committing positions",
    ("source", "committed"): "looking up committed positions",
    ("source", "start_offsets"): "looking up where partitions begin",
    ("source", "end_offsets"): "looking up where partitions end",
    ("source", "offsets_at"): "looking up the offsets of a time",
    ("source", "settle"): "settling messages",
    ("source", "extend"): "renewing leases",
    ("source", "open"): "opening the log",
    ("source", "copy"): "copying the log",
    ("source", "integrity_check"): "checking the log",
    ("sink", "partitions"): "looking up the topic's partitions",
    ("sink", "append"): "sending messages",
    ("admin", "create_topic"): "creating a topic",
    ("admin", "delete_topic"): "deleting a topic",
    ("admin", "topics"): "listing topics",
    ("admin", "truncate"): "removing messages",
    ("admin", "compact"): "removing messages",
    ("admin", "skip"): "skipping offsets",
    ("state", "get"): "reading from the state store",
    ("state", "put"): "writing to the state store",
    ("dead_letters", "put"): "writing dead letters",
    ("dead_letters", "places"): "looking up the topics of dead letters",
}


def words_for(slot: str, operation: str) -> str:
    """What was tried. Drivers of other projects may have operations of their own."""
    return _WORDS.get((slot, operation), f"{slot} {operation}")
