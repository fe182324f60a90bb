"""Who is compared, and what the ratios were meant to be."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, NamedTuple

OURS = "rustmq_sdk"


class Contender(NamedTuple):
    """One row of the tables.

    Attributes:
        name: of the client, with the way it is used.
        module: in this package; imported only in the process that is measured.
        arguments: of its functions.
        needs: the package it is made of.
        share: of the messages, for those that would take minutes over all of them.
        listens: what it is called in the table of latencies; not in it without.
        long: it is in the table of memory too.
    """

    name: str
    module: str
    arguments: dict[str, Any]
    needs: str
    share: float = 1
    listens: str = ""
    long: bool = False

    @property
    def missing(self) -> str:
        """What to do where its client is not installed; else nothing."""
        return "" if find_spec(self.needs) else f"{self.needs} is not installed"


def _ours(how: str, loop: str = "asyncio", *, listens: bool = False, long: bool = False, **options: Any) -> Contender:
    shown = [f"{name}={'true' if value is True else value}" for name, value in options.items() if name != "bare"]
    shown += [] if options.get("bare", True) else ["aiokafka's public API"]
    name = ", ".join([f"{OURS} {how}", loop, *shown])
    arguments = {"how": how, "loop": loop, **options}
    needs = OURS if loop == "asyncio" else loop
    return Contender(name, "with_rustmq", arguments, needs, listens=name if listens else "", long=long)


GETMANY = Contender(
    "aiokafka getmany(500), a commit every 5,000",
    "with_aiokafka",
    {"how": "getmany", "commit_every": 5_000},
    "aiokafka",
    listens="aiokafka getmany()",
    long=True,
)
GETMANY_COMMITS = Contender(
    "aiokafka getmany(500), a commit per batch", "with_aiokafka", {"how": "getmany", "commit_every": 1}, "aiokafka"
)
GETONE = Contender(
    "aiokafka getone(), a commit every 5,000",
    "with_aiokafka",
    {"how": "getone", "commit_every": 5_000},
    "aiokafka",
    share=0.5,
)
FASTSTREAM_MANUAL = Contender(
    "FastStream, manual ack", "with_faststream", {"policy": "manual"}, "faststream", share=0.01
)
RECEIVE = _ours("receive(), ack()", listens=True, long=True)
RECEIVE_PUBLIC = _ours("receive(), ack()", bare=False)
RECEIVE_UVLOOP = _ours("receive(), ack()", "uvloop")
RECEIVE_TRIO = _ours("receive(), ack()", "trio", listens=True, long=True)
BATCHES = _ours("receive_batch(500)")

CONTENDERS = (
    GETMANY,
    GETMANY_COMMITS,
    GETONE,
    Contender("confluent-kafka consume(500)", "with_confluent", {"tuned": False}, "confluent_kafka"),
    Contender(
        "confluent-kafka consume(500), tuned",
        "with_confluent",
        {"tuned": True},
        "confluent_kafka",
        listens="confluent-kafka poll(), tuned",
        long=True,
    ),
    Contender(
        "FastStream, auto-commit",
        "with_faststream",
        {"policy": "ack_first"},
        "faststream",
        share=0.1,
        listens="FastStream, auto-commit",
    ),
    Contender("FastStream, ack", "with_faststream", {"policy": "ack"}, "faststream", share=0.01),
    FASTSTREAM_MANUAL,
    Contender("FastStream, batch=True, ack", "with_faststream", {"policy": "ack", "batch": True}, "faststream"),
    Contender("Quix Streams, update()", "with_quix", {}, "quixstreams", share=0.25, listens="Quix Streams, update()"),
    RECEIVE,
    RECEIVE_PUBLIC,
    RECEIVE_UVLOOP,
    RECEIVE_TRIO,
    _ours("receive(), ack()", thread=True, listens=True),
    BATCHES,
    _ours("receive_batch(500)", "trio"),
    _ours("run()", long=True),
    _ours("run()", "uvloop"),
    _ours("run()", "trio"),
)


class Goal(NamedTuple):
    """What the rate of one was meant to be, relative to that of another."""

    of: Contender
    to: Contender
    at_least: float


GOALS = (
    Goal(RECEIVE, GETMANY, 1.05),
    Goal(RECEIVE_PUBLIC, GETMANY, 0.8),
    Goal(RECEIVE, GETMANY_COMMITS, 1.4),
    Goal(BATCHES, GETMANY, 0.95),
    Goal(RECEIVE_TRIO, RECEIVE, 0.65),
    Goal(RECEIVE, FASTSTREAM_MANUAL, 400),
)
