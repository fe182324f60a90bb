"""The client: what it accepts, when it may be used, and what it hands on."""

from __future__ import annotations

import logging
import re
import sqlite3
import sys
import textwrap
import types
from pathlib import Path
from typing import Any

import anyio
import pytest

import rustmq_sdk
from rustmq_sdk import Client, ConfigurationError, ConsumerStateError, Message, UnknownTopic
from rustmq_sdk._origin import read_origin
from rustmq_sdk.drivers import BUILT_IN, BuiltIn
from rustmq_sdk.drivers.memory.driver import MemoryDriver
from rustmq_sdk.slots import SourceRequest


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RUSTMQ_URL", raising=False)


class TestOrigin:
    """Where the URL and the settings come from."""

    def test_a_url_is_taken_as_it_is(self) -> None:
        assert read_origin("memory://x").url == "memory://x"

    def test_without_one_the_environment_names_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RUSTMQ_URL", "memory://from-environment")
        assert read_origin(None).url == "memory://from-environment"
        assert read_origin({"consumer": {}}).url == "memory://from-environment"

    def test_a_url_in_the_program_wins_over_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RUSTMQ_URL", "memory://from-environment")
        assert read_origin("memory://x").url == "memory://x"
        assert read_origin({"url": "memory://x"}).url == "memory://x"

    def test_the_environment_wins_over_a_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "settings.toml"
        path.write_text('url = "memory://from-file"')
        assert read_origin(path).url == "memory://from-file"
        monkeypatch.setenv("RUSTMQ_URL", "memory://from-environment")
        assert read_origin(path).url == "memory://from-environment"

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("s.yaml", "url: memory://x\nconsumer:\n  group: g\n  retry: {max_attempts: 3}\nproducer:\n  linger: 1\n"),
            ("s.YML", "url: memory://x\nconsumer: {group: g, retry: {max_attempts: 3}}\nproducer: {linger: 1}\n"),
            (
                "s.toml",
                'url = "memory://x"\n[consumer]\ngroup = "g"\nretry = {max_attempts = 3}\n[producer]\nlinger = 1\n',
            ),
        ],
    )
    def test_yaml_and_toml_say_the_same(self, tmp_path: Path, name: str, text: str) -> None:
        path = tmp_path / name
        path.write_text(text)
        for given in (path, str(path)):
            origin = read_origin(given)
            assert origin.url == "memory://x"
            assert origin.consumer == {"group": "g", "retry": {"max_attempts": 3}}
            assert origin.producer == {"linger": 1}

    def test_a_path_of_another_ending_is_read_as_yaml(self, tmp_path: Path) -> None:
        path = tmp_path / "settings.conf"
        path.write_text("url: memory://x")
        assert read_origin(path).url == "memory://x"

    def test_a_url_that_ends_like_a_file_is_a_url(self) -> None:
        assert read_origin("sqlite:///odd.yaml").url == "sqlite:///odd.yaml"

    @pytest.mark.parametrize(
        ("name", "text", "problem"),
        [
            ("s.yaml", "url: [", "this is not YAML"),
            ("s.yaml", "- url", "expected sections, got list"),
            ("s.yaml", "", "expected a URL"),
            ("s.yaml", "url: 5", "expected a URL, got int"),
            ("s.yaml", "url: memory://\nconsumers: {}", "Did you mean 'consumer'"),
            ("s.yaml", "url: memory://\nconsumer: [group]", "expected a section of settings, got list"),
            ("s.toml", "url = ", "cannot be read"),
            ("missing.toml", None, "cannot be read"),
        ],
    )
    def test_a_file_that_cannot_serve_is_refused_by_name(
        self, tmp_path: Path, name: str, text: str | None, problem: str
    ) -> None:
        path = tmp_path / name
        if text is not None:
            path.write_text(text)

        with pytest.raises(ConfigurationError, match=problem) as caught:
            read_origin(path)

        assert str(path) in str(caught.value) + "".join(getattr(caught.value, "__notes__", ()))

    def test_a_file_that_is_no_text_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "s.yaml"
        path.write_bytes(b"\xff\xfe\x00")
        with pytest.raises(ConfigurationError, match="cannot be read"):
            read_origin(path)

    def test_a_file_of_the_embedded_log_is_no_file_of_settings_and_has_a_url(self, tmp_path: Path) -> None:
        path = tmp_path / "m.db"
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE t (x)")

        connection.close()
        with pytest.raises(ConfigurationError, match="this is an SQLite file") as caught:
            Client(path)

        assert caught.value.fix == f'Write "sqlite:///{path}"'

    @pytest.mark.parametrize("given", [None, "", {}, {"url": None}])
    def test_no_url_at_all_is_refused_with_the_way_to_give_one(self, given: Any) -> None:
        with pytest.raises(ConfigurationError, match=r"Client\(\"sqlite:///events.db\"\), or set RUSTMQ_URL"):
            read_origin(given)

    @pytest.mark.parametrize("given", [5, b"memory://", ["memory://"]])
    def test_what_is_neither_url_nor_path_nor_mapping_is_refused(self, given: Any) -> None:
        with pytest.raises(ConfigurationError, match="expected a URL, a path or a mapping"):
            read_origin(given)


class TestBadSettings:
    """They are reported where the client is made, before anything is connected."""

    @pytest.mark.parametrize(
        "given",
        [
            "memory://?prefetch=many",
            "memory://?linger=-1",
            "memory://?prefech=5",
            {"url": "memory://", "consumer": {"prefetch": "5"}},
            {"url": "memory://", "producer": {"batch_size": 0}},
            {"url": "memory://", "consumer": {"lease": 5}},
        ],
    )
    def test_a_bad_setting_is_an_error_when_the_client_is_made(self, given: Any) -> None:
        with pytest.raises(ConfigurationError):
            Client(given)

    def test_a_bad_variable_is_an_error_when_the_client_is_made(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RUSTMQ_PRODUCER_LINGER", "long")
        with pytest.raises(ConfigurationError, match="linger='long'"):
            Client("memory://")

    def test_a_setting_from_a_file_is_refused_with_the_files_name(self, tmp_path: Path) -> None:
        path = tmp_path / "settings.yaml"
        path.write_text("url: memory://\nconsumer: {prefetch: 0}")
        with pytest.raises(ConfigurationError) as caught:
            Client(path)

        assert str(path) in "".join(caught.value.__notes__)


class TestLife:
    async def test_it_is_entered_once(self) -> None:
        client = Client("memory://")
        async with client:
            with pytest.raises(ConsumerStateError, match=r"open already.*Make another Client"):
                await client.__aenter__()

        with pytest.raises(ConsumerStateError, match=r"closed already.*Make another Client"):
            await client.__aenter__()

    @pytest.mark.parametrize("call", ["create_topic", "delete_topic", "topics", "producer", "consumer"])
    async def test_before_and_after_its_block_every_call_names_the_remedy(self, call: str) -> None:
        client = Client("memory://")
        arguments = () if call in ("topics", "producer") else ("t",)
        with pytest.raises(ConsumerStateError, match=r"Use it inside `async with Client\(…\) as client:`"):
            await self.use(client, call, arguments)

        async with client:
            pass

        with pytest.raises(ConsumerStateError, match="the client is closed"):
            await self.use(client, call, arguments)

    async def use(self, client: Client, call: str, arguments: tuple[str, ...]) -> None:
        result = getattr(client, call)(*arguments)
        if call not in ("producer", "consumer"):
            await result

    async def test_a_failed_connect_leaves_it_closed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def refuse(_: MemoryDriver) -> MemoryDriver:
            raise ConnectionRefusedError

        monkeypatch.setattr(MemoryDriver, "__aenter__", refuse)
        client = Client("memory://")
        with pytest.raises(ConnectionRefusedError):
            await client.__aenter__()

        with pytest.raises(ConsumerStateError, match="the client is closed"):
            client.producer()

    async def test_two_clients_of_one_process_do_not_disturb_each_other(self) -> None:
        async with Client("memory://shared-by-two") as one, Client("memory://shared-by-two") as two:
            async with one.producer() as first, two.producer() as second:
                await first.send("t", "1")
                await second.send("t", "2")

            assert await one.topics() == await two.topics() == {"t": 1}

    async def test_leaving_one_client_leaves_the_other_connected(self) -> None:
        async with Client("memory://left-by-one") as one:
            async with Client("memory://left-by-one"):
                pass

            assert await one.topics() == {}


def files_in(folder: Path) -> list[Path]:
    return list(folder.iterdir())


class TestCreating:
    async def test_a_file_that_does_not_exist_is_refused_where_none_may_be_made(self, tmp_path: Path) -> None:
        url = f"sqlite:///{tmp_path}/log.db"
        with pytest.raises(ConfigurationError, match="there is no such file"):
            await Client(f"{url}?create=false").__aenter__()

        assert files_in(tmp_path) == []
        async with Client(url) as client:
            await client.create_topic("orders")

        async with Client(f"{url}?create=false") as client:
            assert await client.topics() == {"orders": 1}


class TestTopics:
    async def test_topics_are_created_listed_and_deleted(self) -> None:
        async with Client("memory://") as client:
            await client.create_topic("orders", 3)
            await client.create_topic("refunds")
            await client.create_topic("orders", partitions=3)
            assert await client.topics() == {"orders": 3, "refunds": 1}
            await client.delete_topic("refunds")
            assert await client.topics() == {"orders": 3}

    async def test_another_number_of_partitions_for_a_topic_that_exists_is_refused(self) -> None:
        async with Client("memory://") as client:
            await client.create_topic("orders", 3)
            with pytest.raises(ConfigurationError):
                await client.create_topic("orders", 4)

    @pytest.mark.parametrize("misspelt", ["partition", "num_partitions", "partions"])
    @pytest.mark.parametrize("url", ["memory://", "sqlite:///{}/log.db"])
    async def test_a_misspelt_number_of_partitions_is_refused_with_its_name(
        self, url: str, misspelt: str, tmp_path: Path
    ) -> None:
        async with Client(url.format(tmp_path)) as client:
            with pytest.raises(ConfigurationError, match=f"^{misspelt}=3: .*Did you mean 'partitions'"):
                await client.create_topic("orders", **{misspelt: 3})

            assert await client.topics() == {}

    async def test_a_misspelt_setting_of_the_driver_is_refused_with_the_drivers_name(self, tmp_path: Path) -> None:
        async with Client(f"sqlite:///{tmp_path}/log.db") as client:
            with pytest.raises(ConfigurationError, match="Did you mean 'retention_age'"):
                await client.create_topic("orders", retention_aged=60)

    async def test_deleting_a_topic_that_is_not_there_is_refused(self) -> None:
        async with Client("memory://") as client:
            with pytest.raises(UnknownTopic):
                await client.delete_topic("orders")

    @pytest.mark.parametrize("partitions", [0, -1, True, 1.5, "3", None])
    async def test_partitions_are_a_whole_number_of_at_least_one(self, partitions: Any) -> None:
        async with Client("memory://") as client:
            with pytest.raises(ConfigurationError, match="at least 1"):
                await client.create_topic("orders", partitions)

    @pytest.mark.parametrize("name", ["", None, 5, ["orders"]])
    async def test_a_topic_needs_a_name(self, name: Any) -> None:
        async with Client("memory://") as client:
            with pytest.raises(ConfigurationError, match="expected a topic's name"):
                await client.create_topic(name)

            with pytest.raises(ConfigurationError, match="expected a topic's name"):
                client.consumer(name)

    async def test_a_consumer_needs_topics_and_each_once(self) -> None:
        async with Client("memory://") as client:
            with pytest.raises(ConfigurationError, match="at least one topic"):
                client.consumer(group="g")

            with pytest.raises(ConfigurationError, match="named twice"):
                client.consumer("a", "b", "a")


class TestWhatIsHandedOn:
    async def test_settings_of_all_places_reach_producer_and_consumer(
        self, monkeypatch: pytest.MonkeyPatch, requests: list[SourceRequest]
    ) -> None:
        monkeypatch.setenv("RUSTMQ_CONSUMER_LEASE", "40")
        settings = {"url": "seen://x?group=from-url&batch_size=7", "consumer": {"close_timeout": 12.0, "group": "file"}}
        async with Client(settings) as client:
            client.consumer("t", "u", prefetch=3)
            client.consumer("t", group="by-keyword")
            assert client.producer(linger=0.5)._config.batch_size == 7

        first, second = requests
        assert (first.topics, first.group, first.lease, first.revoke_budget) == (("t", "u"), "from-url", 40, 12)
        assert second.group == "by-keyword"

    @pytest.fixture
    def requests(self, monkeypatch: pytest.MonkeyPatch) -> list[SourceRequest]:
        """What is asked of a memory driver under the scheme ``seen``."""
        seen: list[SourceRequest] = []
        original = MemoryDriver.source

        def source(driver: MemoryDriver, request: SourceRequest) -> Any:
            seen.append(request)
            return original(driver, request)

        monkeypatch.setattr(MemoryDriver, "source", source)
        monkeypatch.setitem(BUILT_IN, "seen", BuiltIn("seen_driver:open"))
        module = types.ModuleType("seen_driver")
        module.OPTIONS = ("max_messages",)  # type: ignore[attr-defined]
        module.open = lambda _: MemoryDriver()  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "seen_driver", module)
        return seen


class TestSecrets:
    async def test_no_repr_and_no_log_line_has_the_password(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        module = types.ModuleType("guarded_driver")
        module.OPTIONS = ()  # type: ignore[attr-defined]
        module.open = lambda _: MemoryDriver()  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "guarded_driver", module)
        monkeypatch.setitem(BUILT_IN, "guarded", BuiltIn("guarded_driver:open"))
        caplog.set_level(logging.DEBUG)
        client = Client("guarded://user:hunter2@host")
        assert repr(client) == "<Client guarded://user:***@host, new>"
        async with client, client.producer() as producer:
            await producer.send("t", "x")

        assert "hunter2" not in caplog.text


@pytest.mark.anyio
async def test_dead_letters_to_a_topic_that_is_consumed_are_refused_because_they_would_come_back() -> None:
    async with Client("memory://") as client:
        with pytest.raises(ConfigurationError, match="come back"):
            client.consumer("orders", "refunds", group="g", dead_letter_topic="refunds")


@pytest.mark.anyio
@pytest.mark.parametrize("group", ["g", None])
@pytest.mark.parametrize("scheme", ["memory", "sqlite"])
async def test_a_timeout_says_what_was_waited_for(scheme: str, group: str | None, tmp_path: Path) -> None:
    url = "memory://" if scheme == "memory" else f"sqlite:///{tmp_path}/log.db"
    async with Client(url) as client, client.consumer("typo", group=group) as consumer:
        with anyio.fail_after(30):
            while [each.code for each in consumer.health().reasons] != ["unknown_topic", "no_partitions"]:  # noqa: ASYNC110
                await anyio.sleep(0.01)

        with pytest.raises(TimeoutError, match="topic 'typo' does not exist; waiting until"):
            await consumer.receive(timeout=0.05)


async def test_the_quick_start_that_help_shows_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class EnoughError(Exception):
        """The quick start reads for ever."""

    handled: list[str] = []

    async def handle(message: Message) -> None:
        handled.append(message.text())
        if message.text() == "last":
            raise EnoughError

    found = re.search(r"::\n\n((?: {4}.*\n)+)", rustmq_sdk.__doc__ or "")
    assert found is not None
    program = f"async def quick_start():\n{textwrap.indent(textwrap.dedent(found[1]), '    ')}"
    monkeypatch.chdir(tmp_path)
    async with Client("sqlite:///events.db") as client, client.producer() as producer:
        await producer.send_batch("events", ["first", "last"])

    names: dict[str, Any] = {"rustmq_sdk": rustmq_sdk, "handle": handle}
    exec(compile(program, "rustmq_sdk/__init__.py", "exec"), names)
    for _ in range(2):
        with pytest.raises(EnoughError):
            await names["quick_start"]()

    assert handled == ["first", "last", "last"]
