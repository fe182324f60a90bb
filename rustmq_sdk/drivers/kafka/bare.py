"""Taking aiokafka's records as they are decoded, without the ``ConsumerRecord`` that it makes of each.

That object costs 255 ns, as much as everything this package does with a message; what is decoded has the same names.
All else stays aiokafka's: which batches are skipped because their transaction was aborted, positions, checksums.

It rests on how aiokafka 0.14 is built inside. Another release that is built differently gets its own way: slower, and
the same messages.
"""

from __future__ import annotations

from typing import Any

from aiokafka.consumer import fetcher


def _known() -> bool:
    records = getattr(fetcher, "PartitionRecords", None)
    return callable(getattr(records, "_consumer_record", None)) and hasattr(fetcher, "FetchResult")


POSSIBLE = _known()
"""Whether this release of aiokafka is built as expected."""


def take_bare(arrived: Any) -> None:
    """What was fetched of a partition is handed out bare; call before any of it is taken."""
    if POSSIBLE and type(arrived) is fetcher.FetchResult:
        records = arrived._partition_records
        # Found on the object before the method of its class is.
        if isinstance(records, fetcher.PartitionRecords) and "_consumer_record" not in vars(records):
            records._consumer_record = _as_it_is


def _as_it_is(_partition: Any, record: Any) -> Any:
    return record
