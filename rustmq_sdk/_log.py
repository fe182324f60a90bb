"""What the package logs: one logger, and a stable name for each kind of record."""

from __future__ import annotations

import logging
from collections.abc import Mapping

LOG_EVENTS: Mapping[str, str] = {
    # Messages
    "handler_failed": "A handler of run() raised; the message is tried again, or given up.",
    "ack_timeout": "A message was not settled within ack_timeout; it is delivered again.",
    "dead_lettered": "A message was given up, and the dead-letter route has it durably.",
    "dead_letters_failed": "The dead-letter route took no letters; they are written again after a pause.",
    "lost": "The log no longer has messages that were never settled.",
    "read_failed": "The body of a message that is due for a retry could not be read; it is read again later.",
    "stalled": "A message that was delivered is unsettled for stall_after, and holds back its partition's position.",
    # Partitions
    "rebalanced": "Partitions came to this consumer or left it; the text says why.",
    "rebalancing": "The group has been sharing out its partitions for 5 s; the text says what is waited for.",
    "partition_stopped": "A message can be neither handled nor dead-lettered, so its partition waits there.",
    "still_stopped": "resume_partitions() lifted a pause; the partition stays stopped until it is resumed once more.",
    "position_moved": "The committed position was changed from outside; the consumer goes on from the new one.",
    "start_beyond_end": "start= is an offset beyond the end of a partition, or a moment to come; it begins at its end.",
    "moment_doubted": "seek_to_timestamp() got a number that is a moment before March 1973; seconds, perhaps.",
    "topic_missing": "A topic or partition does not exist, or no broker leads it (Kafka); the consumer waits for it.",
    # Commits
    "commit_failed": "Positions or settlements could not be written; they are written again.",
    "commits_put_off": "The embedded log cannot write at present (a full disk, for example); commits wait.",
    "checkpoint_unreadable": "What was stored beside a position is damaged or another program's, and is ignored.",
    "spill_failed": "The state store for large checkpoints could not be written or read.",
    "spill_missing": "The state store no longer has the rest of a checkpoint that the position refers to.",
    # The broker
    "fetch_failed": "A fetch failed; it is repeated after a pause.",
    "circuit_changed": "A circuit breaker opened, is trying one call (half-open), or closed again.",
    "lease_lost": "A message of a queue was still unsettled when its lease ran out; others may get it.",
    "lease_renewal_failed": "The leases of a queue's messages could not be renewed; it is tried again.",
    "topic_settings_changed": "create_topic() named an existing topic of the embedded log, and changed its settings.",
    "topic_settings_differ": "create_topic() named an existing topic of Kafka, which keeps its own settings.",
    "network_file_system": "The file of the embedded log lies on a network file system, where it can be damaged.",
    "wake_by_polling": "The embedded log cannot watch its file for other processes' commits, and looks every 8 ms.",
    # The program
    "quiet": "Nothing at all has come in the first 5 s; the text says what is waited for.",
    "stopping": "stop_on_signals() received a signal; the consumer finishes what is in hand.",
    "handlers_cut_off": "Handlers of run() did not end within their share of close_timeout; their messages come again.",
    "failed": "The consumer cannot go on; the next call raises the error.",
    "sends_failed": "Messages of send_nowait() were not stored, and another error hides that from the program.",
    "observer_failed": "A method of an observer raised; the consumer goes on.",
    "call_abandoned": "A cancelled call to an asyncio client failed, or did not end in time and may still take effect.",
    "island_died": "The event loop in the thread of an asyncio client ended with an error.",
    "island_abandoned": "The thread of an asyncio client could not be closed in good order.",
}
"""The names in ``record.event`` and what each says. Events that observers get as well have the same name there."""

LOGGER = logging.getLogger("rustmq_sdk")


def log(level: int, event: str, text: str, *arguments: object, exc_info: BaseException | None = None) -> None:
    """Logs ``text % arguments``, with the name of the event in ``record.event``.

    Args:
        level: one of the levels of :mod:`logging`.
        event: a key of ``LOG_EVENTS``, written out, so that a test can compare the calls with the table.
        text: the message, with a placeholder for each argument.
        arguments: what the placeholders stand for.
        exc_info: the exception whose traceback is logged after the text.
    """
    LOGGER.log(level, text, *arguments, extra={"event": event}, exc_info=exc_info, stacklevel=2)
