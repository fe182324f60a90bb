"""A dead letter as a message, so that a dead-letter topic can be read like any other."""

from __future__ import annotations

from rustmq_sdk.values import DeadLetter, OutgoingMessage

PREFIX = "rustmq-dead-letter-"
"""How the names of the added headers begin. All other headers are the message's own."""


def as_message(letter: DeadLetter) -> OutgoingMessage:
    """Writes a dead letter as a message: the same body, its own headers unchanged, and after them what is known.

    ``docs/dead-letters.md`` has the headers as a table, and says how letters are sent back.

    Added headers are named ``rustmq-dead-letter-…`` and hold text: ``id``, ``topic``, ``partition``, ``offset``,
    ``timestamp``, ``group``, ``reason``, ``exception-type``, ``exception-message``, ``stack``, ``attempts``,
    ``first-failure`` and ``last-failure``. What is unknown is left out.
    """
    about = {
        "id": letter.id,
        "topic": letter.tp.topic,
        "partition": letter.tp.partition,
        "offset": letter.offset,
        "timestamp": letter.timestamp,
        "group": letter.group,
        "reason": letter.reason,
        "exception-type": letter.exception_type or None,
        "exception-message": letter.exception_message or None,
        "stack": letter.stack or None,
        "attempts": letter.attempts,
        "first-failure": letter.first_failure,
        "last-failure": letter.last_failure,
    }
    # Halves of surrogates are in the errors about file names that are no UTF-8; a letter must not fail for that.
    added = [
        (PREFIX + name, str(value).encode("utf-8", "backslashreplace"))
        for name, value in about.items()
        if value is not None
    ]
    return OutgoingMessage(letter.payload, letter.key, (*letter.headers, *added))
