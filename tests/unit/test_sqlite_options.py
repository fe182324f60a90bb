from __future__ import annotations

from pathlib import Path

import pytest

from rustmq_sdk.config import describe
from rustmq_sdk.drivers import sqlite
from rustmq_sdk.drivers.sqlite import SqliteOptions
from rustmq_sdk.errors import ConfigurationError
from rustmq_sdk.slots import SourceRequest


def test_three_slashes_are_relative_and_four_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert sqlite.open("sqlite:///a/log.db")._path == tmp_path / "a" / "log.db"
    assert sqlite.open("sqlite:////var/log.db")._path == Path("/var/log.db")
    assert sqlite.open("sqlite:///with%20space%3F.db")._path == tmp_path / "with space?.db"


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite://log.db", "sqlite:///:memory:", "sqlite:///a%00b"])
def test_a_url_without_a_file_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="sqlite:///relative"):
        sqlite.open(url)


def test_options_come_from_the_url() -> None:
    driver = sqlite.open("sqlite:///x.db?sync=normal&busy_timeout=0.5&check_crcs=false")
    assert driver._options == SqliteOptions(sync="normal", busy_timeout=0.5, check_crcs=False)
    driver = sqlite.open("sqlite:///x.db?retention_bytes=1000&retention_age=1.5&retention_overtakes=true")
    assert driver._options == SqliteOptions(retention_bytes=1000, retention_age=1.5, retention_overtakes=True)
    assert set(sqlite.OPTIONS) == set(SqliteOptions.__struct_fields__)


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("synk", "full", "sync"),
        ("retention", "7", "retention_"),
        ("sync", "off", "power failure"),
        ("busy_timeout", "-1", ">= 0"),
        ("busy_timeout", "soon", "Seconds"),
        ("retention_age", "0", "Seconds"),
        ("retention_bytes", "1.5", "Bytes"),
        ("check_crcs", "perhaps", "Whether the checksum"),
    ],
)
def test_a_wrong_option_names_itself_and_the_fix(name: str, value: str, hint: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        sqlite.open(f"sqlite:///x.db?{name}={value}")

    assert refusal.value.field == name
    assert hint in refusal.value.fix


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            "sync=ful",
            "sync='ful': expected 'full' or 'normal', got 'ful'. Did you mean 'full'? Whether commits survive",
        ),
        ("sync=off", "sync='off': expected 'full' or 'normal', got 'off'. Whether commits survive"),
        ("busy_timeout=-1", "busy_timeout=-1.0: expected a number >= 0. Seconds to wait for another process's write"),
    ],
)
def test_a_value_that_does_not_fit_is_held_against_what_does(given: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        sqlite.open(f"sqlite:///x.db?{given}")

    assert str(refusal.value).startswith(said)


def test_all_that_does_not_fit_is_said_at_once() -> None:
    with pytest.raises(ConfigurationError) as refusal:
        sqlite.open("sqlite:///x.db?busy_timeout=-1&retention_age=0")

    assert {refusal.value.field, *(other.field for other in refusal.value.also)} == {"busy_timeout", "retention_age"}


async def test_a_topic_has_settings_of_retention_only(tmp_path: Path) -> None:
    async with sqlite.open(f"sqlite:///{tmp_path}/log.db") as driver:
        await driver.admin().create_topic("orders", 1, {"retention_age": 60})
        for wrong in ({"sync": "full"}, {"retention_age": True}, {"retention_age": "60"}, {"retention_bytes": 0}):
            with pytest.raises(ConfigurationError, match=next(iter(wrong))):
                await driver.admin().create_topic("orders", 1, wrong)


def test_the_page_about_the_log_has_every_option_with_its_default_and_meaning() -> None:
    page = (Path(__file__).parents[2] / "docs" / "embedded-log.md").read_text(encoding="utf-8")
    assert describe(SqliteOptions) in page


@pytest.mark.parametrize(("seconds", "lease", "fits"), [(20, 6, False), (20, 40, False), (20, 41, True), (4, 1, True)])
async def test_a_wait_for_writers_is_held_against_the_lease(
    tmp_path: Path, seconds: float, lease: float, fits: bool
) -> None:
    def request(group: str | None) -> SourceRequest:
        return SourceRequest(topics=["orders"], group=group, lease=lease, revoke_budget=1.0)

    async with sqlite.open(f"sqlite:///{tmp_path}/log.db?busy_timeout={seconds}") as driver:
        driver.source(request(None))
        if fits:
            driver.source(request("g"))
        else:
            with pytest.raises(ConfigurationError, match=f"busy_timeout=20.0: .* the lease \\({lease} s\\)"):
                driver.source(request("g"))
