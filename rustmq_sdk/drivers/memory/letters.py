"""Dead letters as messages, so that a dead-letter topic can be read like any other."""

from __future__ import annotations

from rustmq_sdk.values import DeadLetter, OutgoingMessage

PREFIX = "rustmq-dead-letter-"


def as_message(letter: DeadLetter) -> OutgoingMessage:
    """The message as it was, with its own headers first and what is known about its failure behind them."""
    about = {
        "id": letter.id,
        "topic": letter.tp.topic,
        "partition": letter.tp.partition,
        "offset": letter.offset,
        "timestamp": letter.timestamp,
        "group": letter.group,
        "reason": letter.reason,
        "exception-type": letter.exception_type,
        "exception-message": letter.exception_message,
        "stack": letter.stack,
        "attempts": letter.attempts,
        "first-failure": letter.first_failure,
        "last-failure": letter.last_failure,
    }
    added = [(PREFIX + name, str(value).encode()) for name, value in about.items() if value is not None]
    return OutgoingMessage(letter.payload, letter.key, (*letter.headers, *added))


class LetterBox:
    """The letters of one topic, in the order in which they came."""

    def __init__(self) -> None:
        self.letters: list[DeadLetter] = []
        self._ids: set[str] = set()

    def add(self, letter: DeadLetter, *, dedup: bool) -> bool:
        """Keeps a letter; False if ``dedup`` and one of the same id is there already."""
        if dedup and letter.id in self._ids:
            return False

        self._ids.add(letter.id)
        self.letters.append(letter)
        return True
