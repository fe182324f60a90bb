"""A URL becomes a driver, or an error that names the fix and never a secret."""

from __future__ import annotations

import importlib
import sys
import tomllib
import traceback
import types
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

import rustmq_sdk.drivers
from rustmq_sdk import Client, ConfigurationError, ConsumerConfig, MissingDriver, ProducerConfig
from rustmq_sdk._origin import read_origin
from rustmq_sdk._redaction import redact
from rustmq_sdk.config import fields_of
from rustmq_sdk.drivers import BUILT_IN, BuiltIn, open_driver
from rustmq_sdk.options import Location, locate

SETTINGS = {"consumer": fields_of(ConsumerConfig), "producer": fields_of(ProducerConfig)}
FIELDS = {name for names in SETTINGS.values() for name in names}


class Pigeon:
    """What a driver of another project would be: here only the location it got."""

    def __init__(self, location: Location) -> None:
        self.location = location


@pytest.fixture
def pigeon(monkeypatch: pytest.MonkeyPatch) -> Iterator[types.ModuleType]:
    module = types.ModuleType("pigeon_driver")
    module.open = Pigeon  # type: ignore[attr-defined]
    module.OPTIONS = ("loft", "feed")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pigeon_driver", module)
    announce(monkeypatch, "pigeon_driver:open")
    return module


def announce(monkeypatch: pytest.MonkeyPatch, *targets: str) -> None:
    points = tuple(EntryPoint("pigeon", target, "rustmq_sdk.drivers") for target in targets)

    def entry_points(*, group: str, name: str | None = None) -> tuple[EntryPoint, ...]:
        assert group == "rustmq_sdk.drivers"
        return tuple(point for point in points if name in (None, point.name))

    monkeypatch.setattr(rustmq_sdk.drivers, "entry_points", entry_points)


def opened(url: str) -> Any:
    return open_driver(url, others=SETTINGS)


@pytest.mark.parametrize("query", ["", "?group=g&sync=full"])
def test_an_error_of_the_driver_shows_the_url_that_was_written(query: str) -> None:
    with pytest.raises(ConfigurationError, match="a file, not a host") as refused:
        opened(f"sqlite://log.db{query}")

    assert refused.value.value == redact(f"sqlite://log.db{query}")


def test_a_built_in_driver_is_found_by_its_scheme_in_any_case() -> None:
    assert type(open_driver("memory://")).__name__ == "MemoryDriver"
    assert type(open_driver("MEMORY://")).__name__ == "MemoryDriver"


def test_a_driver_of_another_project_is_found_by_its_entry_point(pigeon: types.ModuleType) -> None:
    assert isinstance(opened("pigeon://home"), Pigeon)


def test_the_driver_sees_its_own_options_and_no_others(pigeon: types.ModuleType) -> None:
    driver = opened("pigeon://home:1,away:2/x?loft=a%20b%26c&prefetch=7&linger=0")
    assert (driver.location.bare, driver.location.address) == ("pigeon://home:1,away:2/x", "home:1,away:2/x")
    assert driver.location.options == {"loft": "a b&c"}
    assert "prefetch" in driver.location.shown
    assert opened("pigeon://home").location == locate("pigeon://home")


def test_an_unknown_option_is_refused_with_the_nearest_known_one(pigeon: types.ModuleType) -> None:
    with pytest.raises(ConfigurationError, match="'lofd': did you mean 'loft'"):
        opened("pigeon://home?lofd=1")

    with pytest.raises(ConfigurationError, match="'prefech': did you mean 'prefetch'"):
        opened("pigeon://home?prefech=1")

    with pytest.raises(ConfigurationError, match="its own options are loft, feed"):
        opened("pigeon://home?zzzzzz=1")


def test_two_packages_with_one_scheme_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    announce(monkeypatch, "one:open", "two:open")
    with pytest.raises(ConfigurationError, match=r"one:open, two:open.*Uninstall all but one"):
        opened("pigeon://home")


def test_an_unknown_scheme_is_refused_with_the_nearest_known_one() -> None:
    with pytest.raises(ConfigurationError, match=r"no driver answers to sqlit://\. Did you mean sqlite://"):
        open_driver("sqlit:///x.db")

    with pytest.raises(ConfigurationError, match=r"Known are kafka://, memory://.*sqlite://"):
        open_driver("xyzzy://")


def test_nothing_is_imported_before_a_url_names_it(pigeon: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BUILT_IN, "ghost", BuiltIn("no_such_module_at_all:open"))
    opened("pigeon://home")


class TestMissing:
    """Only the absence of the driver's own client is the user's to mend."""

    @pytest.fixture(autouse=True)
    def ghost(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
        (tmp_path / "ghost_driver.py").write_text("import ghost_client.wire\n")
        (tmp_path / "broken_driver.py").write_text("import something_else\n")
        monkeypatch.syspath_prepend(tmp_path)
        for name in ("ghost", "broken"):
            built_in = BuiltIn(f"{name}_driver:open", extra="spirits", needs=frozenset({"ghost_client"}))
            monkeypatch.setitem(BUILT_IN, name, built_in)

    def test_a_missing_client_is_named_with_the_exact_command(self) -> None:
        with pytest.raises(MissingDriver) as caught:
            open_driver("ghost://user:hunter2@host")

        assert "the ghost driver needs the package ghost_client" in str(caught.value)
        assert caught.value.fix == "Run: pip install 'rustmq-sdk[spirits]' (from a clone: pip install '.[spirits]')"
        assert isinstance(caught.value.__cause__, ModuleNotFoundError)
        assert "hunter2" not in str(caught.value)

    def test_it_is_an_import_error_and_a_configuration_error(self) -> None:
        for kind in (ImportError, ConfigurationError, ValueError):
            with pytest.raises(kind):
                open_driver("ghost://")

    def test_another_missing_module_is_not_explained_away(self) -> None:
        with pytest.raises(ModuleNotFoundError, match="something_else") as caught:
            open_driver("broken://")

        assert not isinstance(caught.value, MissingDriver)

    def test_an_entry_point_whose_module_is_gone_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        announce(monkeypatch, "pigeon_that_flew_away:open")
        with pytest.raises(ModuleNotFoundError, match="pigeon_that_flew_away"):
            opened("pigeon://home")


SECRETS = [
    "kafka://user:hunter2@host:9092/t",
    "kafka://user:hunter2@a:9092,user:hunter2@b:9092",
    "nats://hunter2@host",
    "kafka://user:hun/ter2@host",
    "kafka://user:pre@hunter2@host",
    "kafka://user:x?hunter2@host",
    "kafka://user:x#hunter2@host",
    "kafka://host?password=hunter2",
    "kafka://host?sasl_password=hunter2&x=1",
    "kafka://host?x=1&API_KEY=hunter2",
    "kafka://host?token=hunter2#frag",
    "kafka://host?passwrd=hunter2",
    "kafka://host?pasword=hunter2&x=1",
    "kafka://host?Pwd=hunter2",
    "kafka://host?hunter2",
    "kafka://host#hunter2",
    "kafka://host?password=x&hunter2",
    "kafka://host?x=1&x=hunter2",
    "kafka://host&passwrd=hunter2",
    "kafka://host;password=hunter2",
    "kafka://host|pasword=hunter2",
    "kafka://host password=hunter2",
    "kafka://host%3Fpasword=hunter2",
    "kafka://host\npasword=hunter2",
    "kafka://host,password=hunter2",
    "kafka://[::1;password=hunter2]",
    "kafka://host:9092;pasword=hunter2",
    "password=hunter2",
    "memory://?passwrd=hunter2",
    "sqlite:///x.db?passwrd=hunter2",
    "sqlite://x.db?sync=hunter2",
    "ghost://host?loft=hunter2",
    "kafka:user:hunter2@host",
    "user:hunter2@host",
]


@pytest.mark.parametrize("url", SECRETS)
def test_an_error_about_a_url_shows_no_secret(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        open_driver(url)

    shown = f"{caught.value} {caught.value!r} {caught.value.value!r} {caught.value.fix}"
    assert "hunter2" not in shown
    assert "ter2" not in shown


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("kafka://user:secret@host:9092", "kafka://user:***@host:9092"),
        ("nats://token@host", "nats://***@host"),
        ("kafka://user:secret", "kafka://user:***"),
        ("kafka://user:se/cret?x=1", "kafka://user:***?x=1"),
        ("kafka://one:9092,two:9092/", "kafka://one:9092,two:9092/"),
        ("kafka://[::1]:9092", "kafka://[::1]:9092"),
        ("sqlite:///a/b.db?prefetch=5", "sqlite:///a/b.db?prefetch=5"),
        ("kafka://a:9092,b:9092", "kafka://a:9092,b:9092"),
        ("redis://:secret@host", "redis://:***@host"),
        ("kafka://host?x=1&password=abc&y=2", "kafka://host?x=1&password=***&y=2"),
        ("kafka://host;x=1", "kafka://host;x=***"),
        ("sqlite:///year=2026/b.db", "sqlite:///year=2026/b.db"),
    ],
)
def test_the_rest_of_a_url_stays_readable(url: str, shown: str) -> None:
    assert redact(url, known=("prefetch", "x", "y", "password")) == shown


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", "expected a URL"),
        ("events.db", "expected a URL"),
        ("memory:", "expected a URL"),
        ("memory://?prefetch", "not name=value"),
        ("memory://?=5", "not name=value"),
        ("memory://?a b=5", "not name=value"),
        ("memory://x#y", "after #"),
        ("sqlite:///x.db&sync=full", r"Write \? for the first &"),
        ("sqlite:///x.db&sync=full?wake=poll", r"Write \? for the first &"),
        ("kafka://user:secret@host:9092&acks=all", r"user:\*\*\*@host:9092&acks=\*\*\*.*Write \? for the first &"),
        ("memory://?prefetch=1&prefetch=2", "given twice"),
    ],
)
def test_a_malformed_url_is_refused(url: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        opened(url)


@pytest.mark.parametrize("url", ["sqlite:///cats&dogs.db", "sqlite:///x%26y=z.db", "kafka://user:a&b=c@host:9092"])
def test_an_ampersand_that_is_part_of_a_name_is_fine(url: str) -> None:
    assert locate(url).bare == url


def test_a_url_is_taken_apart() -> None:
    location = locate("Kafka://a:1,b:2/p?x=1%2B1&y=&z=a+b")
    assert (location.scheme, location.bare) == ("kafka", "kafka://a:1,b:2/p")
    assert location.options == {"x": "1+1", "y": "", "z": "a b"}


@pytest.mark.parametrize("scheme", sorted(BUILT_IN))
def test_a_built_in_drivers_options_are_not_those_of_consumers_and_producers(scheme: str) -> None:
    module = importlib.import_module(BUILT_IN[scheme].target.partition(":")[0])
    assert FIELDS.isdisjoint(module.OPTIONS)


def test_the_extras_that_errors_name_exist() -> None:
    extras = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    assert {built_in.extra for built_in in BUILT_IN.values() if built_in.extra} <= set(extras)


class TestOtherPlaces:
    """A URL, or a password that has lost its URL, stands where it does not belong."""

    URL = "kafka://user:hunter2@host"

    @pytest.mark.parametrize(
        "given",
        [
            {"url": [URL]},
            {"kafka": URL},
            {"url": "memory://", "pasword": "hunter2"},
            {"url": "memory://", "consumer": URL},
            {"url": "memory://", "consumer": {"url": URL}},
            {"url": "memory://", "consumer": {"password": "hunter2"}},
            {"url": "memory://", "consumer": {"prefetch": URL}},
            [URL],
            URL.encode(),
        ],
        ids=str,
    )
    def test_a_client_that_is_refused_shows_no_secret(self, given: Any) -> None:
        with pytest.raises(ConfigurationError) as caught:
            Client(given)

        assert "hunter2" not in told(caught.value)

    @pytest.mark.parametrize("name", ["RUSTMQ_CONSUMER_URL", "RUSTMQ_PRODUCER_LINGER", "RUSTMQ_URL"])
    def test_nor_does_the_environment(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(name, f"{self.URL}?passwrd=hunter2")
        with pytest.raises(ConfigurationError) as caught:
            Client(None if name == "RUSTMQ_URL" else "memory://")

        assert "hunter2" not in told(caught.value)

    @pytest.mark.parametrize(
        "text", ["url: 'kafka://user:hunter2@host", "url: kafka://user:hunter2@host\n  x: - y", "passwrd: hunter2"]
    )
    def test_nor_does_a_file_that_cannot_be_read(self, text: str, tmp_path: Path) -> None:
        path = tmp_path / "client.yaml"
        path.write_text(text)
        with pytest.raises(ConfigurationError) as caught:
            Client(path)

        assert "hunter2" not in told(caught.value)
        assert "passwrd" in str(caught.value) or "line" in str(caught.value)

    @pytest.mark.parametrize("scheme", ["kafka://host", "memory://", "sqlite:///x.db"])
    def test_nor_does_a_driver_that_is_opened_by_itself(self, scheme: str) -> None:
        module = importlib.import_module(f"rustmq_sdk.drivers.{scheme.partition(':')[0]}")
        url = f"{scheme}?pasword=hunter2"
        with pytest.raises(ConfigurationError, match="pasword") as caught:
            module.open(url)

        assert "hunter2" not in told(caught.value)

    def test_nor_does_what_is_printed_of_one_taken_apart(self) -> None:
        url = f"{self.URL}?password=hunter2&prefetch=5"
        assert "hunter2" not in f"{locate(url)!r} {locate(url)} {read_origin(url)!r}"

    def test_a_client_shows_the_options_it_knows_but_passwords(
        self, pigeon: types.ModuleType, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pigeon, "OPTIONS", ("loft", "feed_password"))
        client = Client("pigeon://me:hunter2@home?loft=5&prefetch=7&feed_password=hunter2")
        assert repr(client) == "<Client pigeon://me:***@home?loft=5&prefetch=7&feed_password=***, new>"


def told(error: ConfigurationError) -> str:
    """All that is printed of an error: by itself, by a traceback, by a program that looks closer."""
    return f"{''.join(traceback.format_exception(error))} {error!r} {error.value!r} {error.fix} {error.also!r}"
