"""The promises of an admin: topics are created and deleted."""

from __future__ import annotations

import pytest

from rustmq_sdk.errors import ConfigurationError, UnknownTopic, Unsupported
from rustmq_sdk.slots import Admin, Driver
from rustmq_sdk.testing.contracts.base import Contract


class AdminContract(Contract):
    """Tests what :class:`~rustmq_sdk.slots.Admin` promises."""

    @pytest.fixture
    def admin(self, driver: Driver) -> Admin:
        """The driver's admin. Tests are skipped if it has none."""
        try:
            return driver.admin()
        except Unsupported as error:
            pytest.skip(f"this driver has no admin: {error}")

    async def test_a_created_topic_is_listed_with_its_partitions(
        self, driver: Driver, admin: Admin, topic: str
    ) -> None:
        partitions = 3 if driver.capabilities.kind == "log" else 1
        await admin.create_topic(topic, partitions, {})
        assert (await admin.topics())[topic] == partitions

    async def test_creating_it_again_alike_does_nothing(self, admin: Admin, topic: str) -> None:
        for _ in range(2):
            await admin.create_topic(topic, 1, {})

    async def test_creating_it_again_differently_is_refused(self, admin: Admin, topic: str) -> None:
        await admin.create_topic(topic, 1, {})
        with pytest.raises(ConfigurationError) as refusal:
            await admin.create_topic(topic, 2, {})

        assert refusal.value.fix
        assert (await admin.topics())[topic] == 1

    @pytest.mark.parametrize("partitions", [0, -1])
    async def test_a_topic_has_at_least_one_partition(self, admin: Admin, topic: str, partitions: int) -> None:
        with pytest.raises(ConfigurationError):
            await admin.create_topic(topic, partitions, {})

        assert topic not in await admin.topics()

    async def test_an_unknown_setting_is_refused(self, admin: Admin, topic: str) -> None:
        with pytest.raises(ConfigurationError) as refusal:
            await admin.create_topic(topic, 1, {"no_such_setting": 1})

        assert "no_such_setting" in str(refusal.value)
        assert topic not in await admin.topics()

    async def test_a_deleted_topic_is_gone_with_its_messages(self, driver: Driver, admin: Admin, topic: str) -> None:
        await admin.create_topic(topic, 1, {})
        await self.append(driver, topic, [b"old"])
        await admin.delete_topic(topic)
        assert topic not in await admin.topics()
        await admin.create_topic(topic, 1, {})
        await self.append(driver, topic, [b"new"])
        member_of = self.log_member if driver.capabilities.kind == "log" else self.queue_member
        async with member_of(driver, topic, "group-of-" + topic) as member:
            await member.listener.until(lambda: bool(member.listener.assignments), self.patience)
            await member.collect(1)
            assert member.payloads() == [b"new"]

    async def test_deleting_an_unknown_topic_is_an_error(self, admin: Admin, topic: str) -> None:
        with pytest.raises(UnknownTopic):
            await admin.delete_topic(topic)
