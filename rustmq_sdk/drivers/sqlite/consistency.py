"""What must hold between the tables of a log; each rule is one query, and so sees one moment of a log in use."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from rustmq_sdk.drivers.sqlite.transaction import Queries


class Rule(NamedTuple):
    """A query that finds what must not be, and what to say of each of its rows."""

    found_by: str
    said: str


RULES = (
    Rule(
        """
        SELECT t.name, t.partitions, count(p.id), coalesce(max(p.number), -1) + 1
        FROM topic AS t LEFT JOIN partition AS p ON p.topic = t.id
        GROUP BY t.id HAVING count(p.id) != t.partitions OR max(p.number) != t.partitions - 1
        """,
        "topic {0!r} should have {1} partition(s), and has {2}, numbered below {3}",
    ),
    Rule(
        "SELECT id FROM partition WHERE topic NOT IN (SELECT id FROM topic)",
        "the partition with id {0} belongs to no topic",
    ),
    Rule(
        "SELECT partition, count(*) FROM batch WHERE partition NOT IN (SELECT id FROM partition) GROUP BY partition",
        "{1} batch(es) belong to the partition id {0}, which does not exist",
    ),
    Rule(
        "SELECT partition, count(*) FROM producer WHERE partition NOT IN (SELECT id FROM partition) GROUP BY partition",
        "{1} producer(s) are remembered for the partition id {0}, which does not exist",
    ),
    Rule(
        "SELECT consumer_group, partition FROM claim WHERE partition NOT IN (SELECT id FROM partition)",
        "group {0!r} has a claim to the partition id {1}, which does not exist",
    ),
    Rule(
        """
        SELECT DISTINCT consumer_group
        FROM (SELECT consumer_group FROM member UNION SELECT consumer_group FROM claim)
        WHERE consumer_group NOT IN (SELECT name FROM consumer_group)
        """,
        "group {0!r} has members or claims, and is not in the table of groups: retention does not spare it",
    ),
    Rule(
        """
        SELECT c.consumer_group, t.name, p.number, hex(c.owner)
        FROM claim AS c JOIN partition AS p ON p.id = c.partition JOIN topic AS t ON t.id = p.topic
        WHERE c.owner IS NOT NULL
        AND NOT EXISTS (SELECT 1 FROM member AS m WHERE m.consumer_group = c.consumer_group AND m.id = c.owner)
        """,
        "{1}[{2}] is claimed in group {0!r} by the member {3}, which does not exist",
    ),
    Rule(
        """
        SELECT c.consumer_group, t.name, p.number, c.position, p.next
        FROM claim AS c JOIN partition AS p ON p.id = c.partition JOIN topic AS t ON t.id = p.topic
        WHERE c.position NOT BETWEEN 0 AND p.next
        """,
        "group {0!r} has committed offset {3} of {1}[{2}], which ends at {4}",
    ),
)


def inconsistencies(queries: Queries) -> Iterator[str]:
    """In sentences."""
    for rule in RULES:
        for row in queries.rows(rule.found_by):
            yield rule.said.format(*row)
