"""The promises of a dead-letter queue: durable on return, at least once."""

from __future__ import annotations

from collections.abc import Sequence

from rustmq_sdk.slots import Driver
from rustmq_sdk.testing.contracts.base import Contract
from rustmq_sdk.values import DeadLetter, TopicPartition


class DeadLetterQueueContract(Contract):
    """Tests what :class:`~rustmq_sdk.slots.DeadLetterQueue` promises."""

    async def stored(self, driver: Driver, topic: str) -> Sequence[DeadLetter]:
        """Returns the letters that were put, in order. To be overridden."""
        raise NotImplementedError(f"{type(self).__name__} has to say how to read letters back: override stored()")

    async def test_a_letter_is_kept_as_it_was_put(self, driver: Driver, topic: str) -> None:
        letters = [letter("a"), letter("b", payload=None, key=None, group=None, offset=None)]
        await driver.dead_letters(topic).put(letters)
        assert list(await self.stored(driver, topic)) == letters

    async def test_letters_of_many_puts_are_all_kept(self, driver: Driver, topic: str) -> None:
        for name in "abc":
            await driver.dead_letters(topic).put([letter(name)])

        await driver.dead_letters(topic).put([])
        assert [kept.id for kept in await self.stored(driver, topic)] == ["a", "b", "c"]

    async def test_a_repeated_letter_is_kept_at_least_once_and_at_most_once_where_claimed(
        self, driver: Driver, topic: str
    ) -> None:
        queue = driver.dead_letters(topic)
        await queue.put([letter("a")])
        await queue.put([letter("a"), letter("b")])
        expected = ["a", "b"] if driver.capabilities.dedup_letters else ["a", "a", "b"]
        assert [kept.id for kept in await self.stored(driver, topic)] == expected

    async def test_queues_of_two_topics_are_apart(self, driver: Driver, topic: str) -> None:
        await driver.dead_letters(topic).put([letter("a")])
        await driver.dead_letters(topic + "-other").put([letter("a")])
        assert [kept.id for kept in await self.stored(driver, topic)] == ["a"]
        assert [kept.id for kept in await self.stored(driver, topic + "-other")] == ["a"]


def letter(
    name: str,
    *,
    payload: bytes | None = b"\xff\x00payload",
    key: bytes | None = b"key",
    group: str | None = "group",
    offset: int | None = 41,
) -> DeadLetter:
    """Makes a letter with something in every field."""
    return DeadLetter(
        id=name,
        payload=payload,
        key=key,
        headers=(("h", b"\xff"), ("h", None)),
        timestamp=1_700_000_000_123,
        tp=TopicPartition("grüße", 3),
        offset=offset,
        group=group,
        reason="it cannot be handled",
        exception_type="builtins.ValueError",
        exception_message="bad ☃",
        stack="Traceback …\n  line 2",
        attempts=5,
        first_failure=1_700_000_001_000,
        last_failure=1_700_000_002_000,
    )
