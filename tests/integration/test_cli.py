"""The command line on a file of the embedded log, as a person would use it."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
from pathlib import Path

import anyio
import pytest
from rich.console import Console
from typer.main import get_command
from typer.testing import CliRunner

import rustmq_sdk
from rustmq_sdk.cli import _commands
from rustmq_sdk.cli._commands import app
from tests.services.kafka_server import KafkaServer


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Commands take it from the environment, as a person would set it once."""
    url = f"sqlite:///{tmp_path}/log.db"
    monkeypatch.setenv("RUSTMQ_URL", url)
    monkeypatch.setenv("COLUMNS", "120")
    return url


def rustmq(*arguments: str, stdin: str | None = None) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments), input=stdin)
    return result.exit_code, result.output


def test_what_was_sent_is_listed_and_shown(url: str) -> None:
    assert rustmq("create", "orders", "--partitions", "3") == (0, "orders has 3 partitions.\n")
    assert rustmq("send", "orders", "first", "--key", "a") == (0, "1 message sent to orders.\n")
    assert rustmq("send", "orders", stdin="second\nthird\n") == (0, "2 messages sent to orders.\n")

    code, listed = rustmq("topics")
    assert code == 0
    assert "orders" in listed
    assert "3" in listed

    code, shown = rustmq("tail", "orders", "--start", "earliest", "--count", "3")
    assert code == 0
    assert {"first", "second", "third"} <= set(shown.split())
    assert re.search(r"^orders\[\d\]@0 key='a' \| first$", shown, re.MULTILINE)


def test_a_key_is_shown_as_no_payload_can_be(url: str) -> None:
    rustmq("send", "orders", "hello", "--key", "7")
    rustmq("send", "orders", "key='7' | hello")
    shown = rustmq("tail", "orders", "--start", "earliest", "--count", "2")[1]
    assert shown == "orders[0]@0 key='7' | hello\norders[0]@1 | key='7' | hello\n"


@pytest.mark.parametrize("terminal", [True, False])
def test_what_a_terminal_would_obey_is_written_out_there_and_only_there(
    url: str, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    monkeypatch.setattr(_commands, "console", Console(force_terminal=terminal, color_system=None))

    async def make() -> None:
        async with rustmq_sdk.Client(url) as client, client.producer() as producer:
            await producer.send("orders", b"a\x1b]0;owned\x07\x00 b\xc2\x9b\nc", headers=[("h\x1b", b"\x1b[2J")])

    anyio.run(make)
    code, shown = rustmq("tail", "orders", "--start", "earliest", "--count", "1", "--headers")
    assert code == 0
    assert ("\x1b" in shown) is not terminal
    if terminal:
        assert shown == "orders[0]@0 | a\\x1b]0;owned\\x07\\x00 b\\x9b\nc\n    h\\x1b: \\x1b[2J\n"


@pytest.mark.parametrize(
    ("start", "seen"),
    [("0", True), ("1", False), ("2020-01-31", True), ("2020-01-31T12:30+01:00", True), ("2999-01-31", False)],
)
def test_tail_starts_at_an_offset_or_at_a_date(url: str, start: str, seen: bool) -> None:
    rustmq("send", "orders", "first")
    code, shown = rustmq("tail", "orders", "--start", start, "--wait", "0.05")
    assert code == 0
    assert ("first" in shown) is seen


def test_a_start_that_is_none_is_refused_with_the_nearest(url: str) -> None:
    rustmq("send", "orders", "first")
    code, said = rustmq("tail", "orders", "--start", "earlist", "--wait", "0.05")
    assert code == 1
    assert "Did you mean 'earliest'?" in said
    code, said = rustmq("tail", "orders", "--start", "foo")
    assert code == 1
    assert "start='foo': this is no place to start at. Write earliest, latest, an offset, or a date" in said


def test_a_start_that_always_fails_without_a_group_is_refused(url: str) -> None:
    rustmq("send", "orders", "first")
    code, said = rustmq("tail", "orders", "--start", "error", "--wait", "5")
    assert code == 1
    assert said.count("start='error': this is no place to start at. Write earliest, latest, an offset, or a date") == 1


def test_tail_says_that_a_date_to_come_means_the_end(url: str, caplog: pytest.LogCaptureFixture) -> None:
    rustmq("send", "orders", "first")
    assert rustmq("tail", "orders", "--start", "2999-01-31T00:00+00:00", "--wait", "0.05") == (0, "")
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert said == (
        "orders[0]: start=2999-01-31T00:00:00+00:00 is yet to come: it starts at its end, with what is sent from now on"
    )


def test_tail_says_once_what_ends_it(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rustmq("send", "orders", "first")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    program = FAILING_TAIL.format(url=url)
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False, env=environment
    )
    assert result.returncode == 1
    assert (result.stdout + result.stderr).count("the disk is gone") == 1


FAILING_TAIL = """
import sys
from rustmq_sdk import PermanentDriverError
from rustmq_sdk.cli._commands import app
from rustmq_sdk.drivers.sqlite.subscription import SqliteSubscription

async def fetch(*_, **__):
    raise PermanentDriverError("the disk is gone", slot="source", operation="fetch")

SqliteSubscription.fetch = fetch
sys.argv = ["rustmq", "tail", "orders", "--url", "{url}"]
app()
"""


def test_a_topic_without_a_name_is_refused_in_words_that_fit(url: str) -> None:
    code, said = rustmq("create", "")
    assert code == 1
    assert said == "ConfigurationError: topic='': expected a topic's name. Write it as text, for example \"orders\"\n"


@pytest.mark.parametrize("option", [["--wait", "-1"], ["-n", "0"], ["--count", "-5"]])
def test_an_amount_that_makes_no_sense_is_refused(url: str, option: list[str]) -> None:
    code, said = rustmq("tail", "orders", *option)
    assert code == 2
    assert "Invalid value for" in said


def test_lines_that_are_not_text_are_sent_as_they_are(url: str) -> None:
    result = CliRunner().invoke(app, ["send", "orders"], input=b"\xff\xfe\n")
    assert result.output == "1 message sent to orders (new topic).\n"
    assert "\\xff\\xfe" in rustmq("tail", "orders", "--start", "earliest", "--count", "1")[1]


def test_tail_says_that_a_number_beyond_the_end_means_the_end(url: str, caplog: pytest.LogCaptureFixture) -> None:
    rustmq("create", "orders", "--partitions", "2")
    assert rustmq("tail", "orders", "--start", "99", "--wait", "0.05")[0] == 0
    assert [record.getMessage().partition(",")[0] for record in caplog.records if record.levelname == "WARNING"] == [
        "orders[0] ends at offset 0",
        "orders[1] ends at offset 0",
    ]


def test_tail_stops_where_nothing_comes(url: str) -> None:
    rustmq("send", "orders", "only")
    assert rustmq("tail", "orders", "--start", "latest", "--wait", "0.05") == (0, "")


def test_sending_to_a_topic_that_was_not_there_says_so(url: str) -> None:
    assert rustmq("send", "ordres", "typo") == (0, "1 message sent to ordres (new topic).\n")
    assert rustmq("send", "ordres", "typo") == (0, "1 message sent to ordres.\n")
    assert rustmq("send", "nothing", stdin="") == (0, "0 messages sent to nothing.\n")


def test_tail_knows_patterns_and_partitions_of_kafka(
    kafka: KafkaServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("RUSTMQ_URL", f"kafka://{kafka.bootstrap}")
    topic = f"tailed-{secrets.token_hex(4)}"
    rustmq("create", topic, "--partitions", "2")
    rustmq("send", topic, "hello", "--key", "a")
    for there in (f"{topic}[0]", f"{topic}[1]", f"^{topic}"):
        result = CliRunner().invoke(app, ["tail", there, "-s", "earliest", "--wait", "1"])
        assert (result.exit_code, result.stderr) == (0, "")
        assert ("| hello" in result.stdout) is (there != f"{topic}[1]"), "the key belongs to the other one"

    result = CliRunner().invoke(app, ["tail", f"{topic}[7]", "--wait", "0.05"])
    assert result.stderr.startswith(f"Topic '{topic}' has partitions 0 to 1; waiting for {topic}[7]")
    assert "Did you mean" not in result.stderr
    result = CliRunner().invoke(app, ["tail", f"^{topic}x", "--wait", "0.05"])
    assert result.stderr.startswith(f"No topic matches '^{topic}x'")
    assert "waiting" not in caplog.text, "it is said once"


def test_tail_says_beside_its_output_which_topic_it_waits_for(url: str) -> None:
    rustmq("create", "orders")
    result = CliRunner().invoke(app, ["tail", "orderz", "--wait", "0.05"])
    assert result.exit_code == 0
    assert result.stdout == ""
    assert (
        result.stderr
        == "Topic 'orderz' does not exist; waiting until somebody creates it or sends to it. Did you mean 'orders'?\n"
    )


def test_a_topic_that_does_not_fit_is_refused_in_one_line(url: str) -> None:
    rustmq("create", "orders")
    code, said = rustmq("create", "orders", "--partitions", "2")
    assert code == 1
    assert said.startswith("ConfigurationError: ")
    assert "Traceback" not in said


@pytest.mark.parametrize("command", [["topics"], ["tail", "orders", "--start", "earliest", "--wait", "0.05"]])
@pytest.mark.parametrize("query", ["", "?create=true"])
def test_who_only_looks_creates_nothing(url: str, tmp_path: Path, command: list[str], query: str) -> None:
    code, said = rustmq(*command, "--url", url + query)
    assert code == 1
    assert "log.db': there is no such file. Name an existing log" in said.replace("\n", "")
    assert "create=true" not in said
    assert list(tmp_path.iterdir()) == []


def test_looking_at_another_file_leaves_it_as_it_is(url: str, tmp_path: Path) -> None:
    (tmp_path / "log.db").touch()
    code, said = rustmq("topics")
    assert code == 1
    assert "the file is empty" in said
    assert [(path.name, path.stat().st_size) for path in tmp_path.iterdir()] == [("log.db", 0)]


def test_a_wrong_url_is_refused_in_one_line() -> None:
    code, said = rustmq("topics", "--url", "sqlight:///x.db")
    assert code == 1
    assert "sqlite" in said


def test_an_error_of_the_settings_shows_the_value_and_where_it_was_read(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUSTMQ_CONSUMER_GOUP", "billing")
    code, said = rustmq("topics")
    assert code == 1
    assert "goup='billing': there is no such setting. Did you mean 'group'?" in said
    assert "Read from the environment variable RUSTMQ_CONSUMER_GOUP" in said


def test_check_finds_a_sound_file_and_a_missing_one(url: str, tmp_path: Path) -> None:
    rustmq("send", "orders", "first")
    assert rustmq("check", f"{tmp_path}/log.db")[0] == 0
    code, said = rustmq("check", f"{tmp_path}/nothing.db")
    assert code == 1
    assert "no such file" in said


def test_a_log_is_checked_and_copied_by_its_url_as_well(url: str, tmp_path: Path) -> None:
    rustmq("send", "orders", "first")
    assert rustmq("check") == (0, f"{url}: sound\n")
    assert rustmq("check", url) == (0, f"{url}: sound\n")
    for number, command in enumerate([["backup", url], ["backup"], ["backup", f"{tmp_path}/log.db"]]):
        copied = f"{tmp_path}/copy{number}.db"
        code, said = rustmq(*command, copied)
        assert code == 0, said
        assert rustmq("check", copied)[0] == 0


def test_a_log_that_is_no_file_or_is_not_named_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RUSTMQ_URL", raising=False)
    for command in (["check", "memory://"], ["backup", "kafka://me:secret@host", "copy.db"]):
        code, said = rustmq(*command)
        assert code == 1
        assert "only the embedded log is a file" in said
        assert "secret" not in said

    for command in (["check"], ["backup", "copy.db"]):
        code, said = rustmq(*command)
        assert code == 1
        assert "or set RUSTMQ_URL" in said

    assert "target='copy.db': the one name given is the copy's" in said
    assert "rustmq backup LOG copy.db" in said
    assert rustmq("backup", "one", "two", "three")[0] == 2


def test_a_topic_is_created_with_settings_of_its_own(url: str) -> None:
    arguments = ["--set", "retention_age=3600", "-s", "retention_bytes=1000000"]
    assert rustmq("create", "orders", "-p", "2", *arguments) == (0, "orders has 2 partitions.\n")
    assert rustmq("create", "orders", "-p", "2", "--set", "retention_bytes=none") == (0, "orders has 2 partitions.\n")
    code, said = rustmq("create", "other", "--set", "retention_agee=1")
    assert (code, "Did you mean 'retention_age'?" in said) == (1, True)
    code, said = rustmq("create", "other", "--set", "retention_age=soon")
    assert (code, "retention_age='soon': expected a finite number or None" in said) == (1, True)


@pytest.mark.parametrize("setting", ["retention_age", "=5", "name=x", "partitions=3"])
def test_a_setting_is_a_name_and_a_value(url: str, setting: str) -> None:
    code, said = rustmq("create", "orders", "--set", setting)
    assert (code, "expected NAME=VALUE" in said) == (2, True)


@pytest.mark.parametrize("command", ["create", "send", "tail", "settings", "check", "backup", "topics"])
def test_every_option_says_what_it_is_for(command: str) -> None:
    options = get_command(app).commands[command].params  # type: ignore[attr-defined]
    assert [option.name for option in options if option.opts[0].startswith("-") and not option.help] == []


def test_settings_of_what_has_none_are_refused_in_plain_words() -> None:
    code, said = rustmq("settings", "bogus")
    assert code == 2
    assert "there are settings of consumer, retry and producer, and not of 'bogus'" in " ".join(
        said.replace("│", " ").split()
    )
    assert "Value error" not in said


def test_settings_are_a_table_of_all_of_them() -> None:
    code, table = rustmq("settings", "producer")
    assert code == 0
    assert "| `linger` |" in table


def test_the_command_is_installed_by_name_and_by_module() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "rustmq_sdk.cli", "--help"], capture_output=True, text=True, timeout=60, check=True
    )
    assert "topics" in result.stdout
