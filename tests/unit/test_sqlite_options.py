from __future__ import annotations

from pathlib import Path

import pytest

from rustmq_sdk.drivers import sqlite
from rustmq_sdk.drivers.sqlite.options import SqliteOptions, read_options, read_settings
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


def test_options_come_from_the_url_and_from_the_mapping() -> None:
    driver = sqlite.open("sqlite:///x.db?sync=normal&busy_timeout=0.5&check_crcs=false", {"busy_timeout": "2"})
    assert driver._options == SqliteOptions(sync="normal", busy_timeout=2.0, check_crcs=False)
    assert read_options({"retention_bytes": "1000", "retention_age": "1.5", "retention_overtakes": "true"}) == (
        SqliteOptions(retention_bytes=1000, retention_age=1.5, retention_overtakes=True)
    )
    assert set(sqlite.OPTIONS) == set(SqliteOptions.__struct_fields__)


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("synk", "full", "sync"),
        ("retention", "7", "retention_"),
        ("sync", "off", "full or normal"),
        ("busy_timeout", "-1", "0 or more"),
        ("busy_timeout", "soon", "Seconds"),
        ("retention_age", "0", "Seconds"),
        ("retention_bytes", "1.5", "size"),
        ("check_crcs", "perhaps", "true or false"),
    ],
)
def test_a_wrong_option_names_itself_and_the_fix(name: str, value: str, hint: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        read_options({name: value})

    assert refusal.value.field == name
    assert hint in refusal.value.fix


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("sync=ful", "sync='ful': expected 'full' or 'normal', got 'ful'. Did you mean 'full'?"),
        ("sync=off", "sync='off': expected 'full' or 'normal', got 'off'. Write full or normal."),
        ("busy_timeout=-1", "busy_timeout='-1': expected `float` >= 0.0, got '-1'. Seconds, 0 or more."),
    ],
)
def test_a_value_that_does_not_fit_is_held_against_what_does(given: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        sqlite.open(f"sqlite:///x.db?{given}")

    assert str(refusal.value) == said


def test_a_topic_has_settings_of_retention_only() -> None:
    assert read_settings({"retention_age": 60}).retention_age == 60
    with pytest.raises(ConfigurationError, match="no such setting"):
        read_settings({"sync": "full"})

    with pytest.raises(ConfigurationError):
        read_settings({"retention_age": True})


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
