"""Variables of the environment: whose they are, which are refused, and what an error says about them."""

from __future__ import annotations

import re
import sys
import textwrap
import types
from importlib.metadata import EntryPoint
from typing import Annotated, Any, Literal

import pytest

import rustmq_sdk.drivers
import rustmq_sdk.options
from rustmq_sdk import Client, ConfigurationError
from rustmq_sdk.drivers import BUILT_IN, memory, sqlite
from rustmq_sdk.drivers.memory import MemoryDriver
from rustmq_sdk.drivers.sqlite import SqliteOptions
from rustmq_sdk.options import Schema, about, locate, read_options


class TestOptionsOfDrivers:
    def test_the_embedded_log_takes_them(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RUSTMQ_SQLITE_SYNC", "normal")
        monkeypatch.setenv("RUSTMQ_SQLITE_RETENTION_AGE", "60")
        assert sqlite.open("sqlite:///x.db")._options == SqliteOptions(sync="normal", retention_age=60.0)

    def test_so_does_the_memory_driver(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RUSTMQ_MEMORY_KIND", "queue")
        assert memory.open("memory://").capabilities.kind == "queue"

    def test_the_url_wins_over_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RUSTMQ_SQLITE_BUSY_TIMEOUT", "1")
        monkeypatch.setenv("RUSTMQ_MEMORY_KIND", "queue")
        assert sqlite.open("sqlite:///x.db?busy_timeout=2")._options.busy_timeout == 2
        assert memory.open("memory://?kind=log").capabilities.kind == "log"

    @pytest.mark.parametrize(
        ("variable", "text", "url", "said"),
        [
            ("RUSTMQ_SQLITE_SYNC", "bogus", "sqlite:///x.db", "sync='bogus'"),
            ("RUSTMQ_SQLITE_RETENTION_AGE", "x", "sqlite:///x.db", "retention_age='x'"),
            ("RUSTMQ_SQLITE_SYNK", "full", "sqlite:///x.db", "Did you mean 'sync'?"),
            ("RUSTMQ_MEMORY_KIND", "bag", "memory://", "kind='bag'"),
            ("RUSTMQ_MEMORY_KINDS", "log", "memory://", "Did you mean 'kind'?"),
            ("RUSTMQ_KAFKA_TLS", "maybe", "kafka://a", "tls='maybe': expected true or false"),
            ("RUSTMQ_KAFKA_SASL", "PLAIN", "kafka://a", "needs a user"),
            ("RUSTMQ_KAFKA_PASWORD", "hush", "kafka://a", "Did you mean 'password'?"),
            ("RUSTMQ_CARRIER_PIGEON_LOFTS", "none", "carrier-pigeon://home", "lofts='none': expected a whole number"),
        ],
    )
    def test_what_is_wrong_is_refused_by_the_variable(
        self, variable: str, text: str, url: str, said: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(variable, text)
        with pytest.raises(ConfigurationError) as caught:
            Client(url)

        assert said in str(caught.value)
        assert caught.value.__notes__ == [f"Read from the environment variable {variable}"]

    def test_a_variable_is_not_blamed_for_what_the_url_says(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RUSTMQ_SQLITE_SYNC", "normal")
        with pytest.raises(ConfigurationError, match="bogus") as caught:
            Client("sqlite:///x.db?sync=bogus")

        assert not hasattr(caught.value, "__notes__")

    def test_those_of_a_driver_that_is_not_used_are_left_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RUSTMQ_SQLITE_SYNK", "bogus")
        assert isinstance(Client("memory://")._driver, MemoryDriver)


class TestMisspeltSections:
    @pytest.mark.parametrize(
        ("variable", "meant"),
        [
            ("RUSTMQ_CONSUMR_PREFETCH", "RUSTMQ_CONSUMER_PREFETCH"),
            ("RUSTMQ_CONSUMERS_PREFECH", "RUSTMQ_CONSUMER_PREFETCH"),
            ("RUSTMQ_PRODUCR_LINGER", "RUSTMQ_PRODUCER_LINGER"),
            ("RUSTMQ_SQLLITE_SYNC", "RUSTMQ_SQLITE_SYNC"),
        ],
    )
    def test_what_is_nearly_a_setting_is_refused_with_its_name(
        self, variable: str, meant: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(variable, "hunter2")
        with pytest.raises(ConfigurationError, match=f"Did you mean {meant}") as caught:
            Client("sqlite:///x.db")

        assert caught.value.field == variable
        assert "hunter2" not in str(caught.value)

    @pytest.mark.parametrize(
        "variable",
        [
            "RUSTMQ_URL_OF_ORDERS",
            "RUSTMQ_SEED",
            # Kubernetes makes these for services named rustmq, rustmq-kafka and rustmq-server.
            "RUSTMQ_PORT",
            "RUSTMQ_PORT_9092_TCP_ADDR",
            "RUSTMQ_SERVICE_HOST",
            "RUSTMQ_KAFKA_SERVICE_HOST",
            "RUSTMQ_SERVER_PORT",
            "RUSTMQ_CONSUMERS_REPLICAS",
            "RUSTMQ_",
            "RUSTMQ_CONSUMER",
        ],
    )
    def test_what_may_be_somebody_elses_is_left_alone(self, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(variable, "somebody else's")
        assert isinstance(Client("memory://")._driver, MemoryDriver)

    @pytest.mark.parametrize("url", ["memory://", "sqlite:///x.db", "kafka://a"])
    def test_services_of_kubernetes_may_be_named_as_our_sections_are(
        self, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for section in ("consumer", "producer", *BUILT_IN):
            service = f"RUSTMQ_{section.upper()}"
            monkeypatch.setenv(f"{service}_SERVICE_HOST", "10.0.0.11")
            monkeypatch.setenv(f"{service}_SERVICE_PORT", "9092")
            monkeypatch.setenv(f"{service}_SERVICE_PORT_METRICS", "9404")
            monkeypatch.setenv(f"{service}_PORT", "tcp://10.0.0.11:9092")
            monkeypatch.setenv(f"{service}_PORT_9092_TCP", "tcp://10.0.0.11:9092")
            for part in ("PROTO", "PORT", "ADDR"):
                monkeypatch.setenv(f"{service}_PORT_9092_TCP_{part}", "10.0.0.11")

        assert repr(Client(url)) == f"<Client {url}, new>"

    @pytest.mark.parametrize("scheme", sorted({*BUILT_IN} - {"memory"}))
    def test_no_driver_of_ours_is_taken_for_a_misspelling(self, scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(f"RUSTMQ_{scheme.upper()}_X", "another program's")
        assert isinstance(Client("memory://")._driver, MemoryDriver)

    def test_nor_is_a_driver_of_another_project(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RUSTMQ_CONSUMERS_PREFETCH", "another driver's")
        with pytest.raises(ConfigurationError, match="Did you mean RUSTMQ_CONSUMER_PREFETCH"):
            Client("memory://")

        announce(monkeypatch, EntryPoint("consumers", "another_driver:open", "rustmq_sdk.drivers"))
        assert isinstance(Client("memory://")._driver, MemoryDriver)


class PigeonOptions(Schema, frozen=True, kw_only=True):
    lofts: Annotated[int, about("Number of lofts that every message is sent to.", ge=1)] = 1


@pytest.fixture(autouse=True)
def pigeon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver of another project, which reads its options as ours do."""
    module = types.ModuleType("pigeon_driver")
    module.open = lambda location: read_options(PigeonOptions, location)  # type: ignore[attr-defined]
    module.OPTIONS = PigeonOptions.__struct_fields__  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pigeon_driver", module)
    announce(monkeypatch, EntryPoint("carrier-pigeon", "pigeon_driver:open", "rustmq_sdk.drivers"))


def test_the_example_for_authors_of_drivers_reads_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    found = re.search(r"::\n\n((?: {4}.*\n|\n)+)", rustmq_sdk.options.__doc__ or "")
    assert found is not None
    names: dict[str, Any] = {**vars(rustmq_sdk.options), "Literal": Literal, "PigeonDriver": lambda *given: given}
    exec(
        compile(
            "from typing import Annotated\n" + textwrap.dedent(found[1]),
            "rustmq_sdk/options.py",
            "exec",
            dont_inherit=True,
        ),
        names,
    )
    monkeypatch.setenv("RUSTMQ_PIGEON_LOFTS", "3")
    address, options = names["open"]("pigeon://home?feed=peas")
    assert (address, options.lofts, options.feed) == ("home", 3, "peas")
    with pytest.raises(ConfigurationError, match=r"feed='pees': .*Did you mean 'peas'\? What the pigeons are given"):
        names["open"]("pigeon://home?feed=pees")


def test_an_option_that_sounds_secret_is_not_shown_whatever_was_given() -> None:
    class Guarded(Schema, frozen=True, kw_only=True):
        api_key: Annotated[int | None, about("Number of the key.")] = None

    with pytest.raises(ConfigurationError) as caught:
        read_options(Guarded, locate("pigeon://home?api_key=hunter2"))

    assert "hunter2" not in f"{caught.value} {caught.value.value!r}"


def announce(monkeypatch: pytest.MonkeyPatch, point: EntryPoint) -> None:
    monkeypatch.setattr(
        rustmq_sdk.drivers, "entry_points", lambda group, name=None: [point] if name in (None, point.name) else []
    )
