"""Which of aiokafka's log lines are lowered: those that were read in its source, of clients of ours."""

from __future__ import annotations

import importlib
import inspect
import logging
import re

import pytest

pytest.importorskip("aiokafka")

from rustmq_sdk.drivers.kafka.quieting import SAID_BY_US, said_by_us

LINES = [(name, line) for name, lines in SAID_BY_US.items() for line in lines]


@pytest.mark.parametrize(("name", "line"), LINES)
def test_aiokafka_has_the_line_as_it_is_known_here(name: str, line: str) -> None:
    source = inspect.getsource(importlib.import_module(name))
    assert line in re.sub(r'"\s+"', "", source)


def levels(caplog: pytest.LogCaptureFixture) -> list[int]:
    return [record.levelno for record in caplog.records]


@pytest.mark.parametrize(("name", "line"), LINES)
def test_a_line_that_we_say_ourselves_is_at_debug(name: str, line: str, caplog: pytest.LogCaptureFixture) -> None:
    with said_by_us():
        logging.getLogger(name).error(line, *["x"] * line.count("%s"))
        assert caplog.records == []
        with caplog.at_level(logging.DEBUG, logger="aiokafka"):
            logging.getLogger(name).error(line, *["x"] * line.count("%s"))

    assert levels(caplog) == [logging.DEBUG]


@pytest.mark.parametrize(("name", "line"), LINES)
def test_other_lines_and_other_peoples_clients_keep_theirs(
    name: str, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    with said_by_us():
        logging.getLogger(name).error("disks are full")

    logging.getLogger(name).error(line, *["x"] * line.count("%s"))
    assert levels(caplog) == [logging.ERROR, logging.ERROR]
