"""The dead letters that a topic of the broker holds."""

from __future__ import annotations

from rustmq_sdk.values import DeadLetter


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
