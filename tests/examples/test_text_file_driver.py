"""The driver of the examples keeps the promises of its slots, as far as a text file can carry them.

A file has one partition, and a line no key, no headers and no time: tests about those are skipped and say so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from driver_parts.lines import read_lines
from driver_parts.text_file import TextFile
from rustmq_sdk.slots import Capabilities, LogSubscription, Source, SourceRequest
from rustmq_sdk.testing.contracts.log_offsets import LogOffsetsContract
from rustmq_sdk.testing.contracts.log_reading import LogReadingContract
from rustmq_sdk.testing.contracts.log_waiting import LogWaitingContract
from rustmq_sdk.values import Assignment, OutgoingMessage, SentMessage, TopicPartition


class Files:
    """As much of a driver as the suites need."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def capabilities(self) -> Capabilities:
        return TextFile.capabilities

    def source(self, request: SourceRequest) -> TextFile:
        (topic,) = request.topics
        return TextFile(self.folder / topic, request.group or "")


NOT_IN_A_FILE = {
    "test_a_large_record_comes_whole": "a line has no line feed inside",
    "test_a_record_comes_back_as_it_was_sent": "a line has no key and no headers",
    "test_an_empty_payload_is_not_a_missing_one": "a line is never a tombstone",
    "test_a_topic_of_any_name_works_or_is_refused": "the topic is the name of a file that exists",
    "test_a_topic_that_does_not_exist_is_waited_for": "the topic is the name of a file that exists",
}


class OnFiles:
    @pytest.fixture(autouse=True)
    def _leave_out(self, request: pytest.FixtureRequest) -> None:
        if reason := NOT_IN_A_FILE.get(request.function.__name__):
            pytest.skip(reason)

    @pytest.fixture
    def driver(self, tmp_path: Path) -> Files:
        return Files(tmp_path)

    async def create(self, driver: Any, topic: str, partitions: int = 1) -> Sequence[TopicPartition]:
        if partitions > 1:
            pytest.skip("a text file has one partition")

        (driver.folder / topic).touch()
        return [TopicPartition(topic, 0)]

    async def append(
        self, driver: Any, topic: str, messages: Iterable[bytes | OutgoingMessage | None], partition: int = 0
    ) -> Sequence[SentMessage]:
        sent = []
        with (driver.folder / topic).open("ab") as file:
            for message in messages:
                sent.append(SentMessage(topic, 0, file.tell(), 0))
                text = message.payload if isinstance(message, OutgoingMessage) else message
                file.write((text or b"") + b"\n")

        return sent


class TestReading(OnFiles, LogReadingContract):
    pass


class TestWaiting(OnFiles, LogWaitingContract):
    pass


class TestOffsets(OnFiles, LogOffsetsContract):
    pass


def test_lines_stay_within_the_bytes_asked_for_except_a_larger_first_one(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"a long line\nb\nc\nnot yet com")
    assert [line.text for line in read_lines(path, 0, 9, 4)] == [b"a long line"]
    assert [line.text for line in read_lines(path, 12, 9, 4)] == [b"b", b"c"]
    assert read_lines(path, 16, 9, 4) == []


@pytest.mark.anyio
async def test_a_line_that_the_file_no_longer_has_is_named(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"a\n")
    piece = await TextFile(path, "group").read(Assignment(TopicPartition("lines", 0), None), [0, 2])
    assert [line.text for line in piece.records] == [b"a"]
    assert [(gone.first, gone.end) for gone in piece.gone] == [(2, 3)]


def _fills_both_slots(file: TextFile) -> tuple[Source, LogSubscription]:
    return file, file
