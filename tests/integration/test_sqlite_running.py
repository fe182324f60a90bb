"""Programs that use an embedded log while something goes wrong with it: a page is damaged, somebody keeps it locked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import anyio
import apsw
import pytest

import rustmq_sdk
from rustmq_sdk.errors import PermanentDriverError
from tests.integration.others import PATIENCE, until

TOPIC, GROUP = "quakes", "alarm"

OVERWRITE = """
import sys

with open(sys.argv[1], "r+b") as file:
    file.seek(int(sys.argv[2]))
    file.write(b"\\xff" * int(sys.argv[3]))
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


def damage_index(path: Path) -> None:
    """By another process: SQLite's locks would go if this one opened the file and closed it."""
    connection = apsw.Connection(str(path))
    page = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'batch_by_base'").get
    size = connection.pragma("page_size")
    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    connection.close()
    command = [sys.executable, "-c", OVERWRITE, str(path), str((page - 1) * size), str(size)]
    subprocess.run(command, check=True, timeout=30)


async def test_a_page_that_is_damaged_while_the_log_is_open_ends_the_consumer_and_loses_no_position(path: Path) -> None:
    url = f"sqlite:///{path}"
    async with rustmq_sdk.Client(url) as client, client.producer() as producer:
        for number in range(30):
            await producer.send(TOPIC, f"{number} {'x' * 10_000}")

        await anyio.to_thread.run_sync(damage_index, path)
        with pytest.raises(PermanentDriverError, match="rustmq check") as refusal:  # noqa: PT012
            async with client.consumer(TOPIC, group=GROUP) as consumer:
                for _ in range(31):
                    await (await consumer.receive(timeout=PATIENCE)).ack()

        assert str(path) in str(refusal.value)

    connection = apsw.Connection(str(path))
    assert connection.execute("SELECT coalesce(max(position), 0) FROM claim").get == 0
    connection.close()


async def test_all_goes_on_after_somebody_has_kept_the_log_locked_for_long(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"sqlite:///{path}?busy_timeout=0.05"
    async with (
        rustmq_sdk.Client(url) as client,
        client.producer() as producer,
        client.consumer(TOPIC, group=GROUP, commit_interval=0.05) as consumer,
        anyio.create_task_group() as tasks,
    ):
        await producer.send(TOPIC, b"before")
        message = await consumer.receive(timeout=PATIENCE)
        other = apsw.Connection(str(path))
        other.set_busy_timeout(10_000)
        other.execute("BEGIN IMMEDIATE")
        tasks.start_soon(producer.send, TOPIC, b"meanwhile")
        await message.ack()
        await until(lambda: "busy_timeout" in caplog.text)  # a commit has failed, and said why
        other.execute("ROLLBACK")
        other.close()
        assert (await consumer.receive(timeout=PATIENCE)).text() == "meanwhile"
        await consumer.commit()
        lag = await consumer.get_lag()

    assert sum(lag.values()) <= 1, "what was acked is committed"
