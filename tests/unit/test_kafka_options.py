from __future__ import annotations

import copy
import importlib.util
import pickle
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlencode

import msgspec
import pytest

from rustmq_sdk import Client
from rustmq_sdk._settings import meaning_of
from rustmq_sdk.drivers import kafka
from rustmq_sdk.drivers.kafka.options import OPTIONS, KafkaOptions
from rustmq_sdk.drivers.kafka.reading_options import read_options
from rustmq_sdk.drivers.kafka.settings import client_settings
from rustmq_sdk.errors import ConfigurationError
from rustmq_sdk.options import locate

SERVERS = ("a:9092",)


def read(url: str, options: Mapping[str, str] | None = None) -> KafkaOptions:
    return read_options(locate(f"{url}?{urlencode(options)}" if options else url))


@pytest.mark.parametrize(
    ("url", "servers"),
    [
        ("kafka://a", ("a:9092",)),
        ("kafka://a:1,b.example:65535", ("a:1", "b.example:65535")),
        ("kafka://a:9092/", ("a:9092",)),
        ("KAFKA://[::1]:9,[fe80::1]", ("[::1]:9", "[fe80::1]:9092")),
        ("kafka://127.0.0.1,[fe80::1%eth0]", ("127.0.0.1:9092", "[fe80::1%eth0]:9092")),
        ("kafka://broker_1,bücher.example.", ("broker_1:9092", "bücher.example.:9092")),
        ("kafka://u:p@a,b", ("a:9092", "b:9092")),
    ],
)
def test_the_url_names_the_servers(url: str, servers: tuple[str, ...]) -> None:
    given = {"sasl": "PLAIN"} if "@" in url else {}
    assert read(url, given).servers == servers


@pytest.mark.parametrize(
    "url",
    [
        *(
            "kafka://",
            "kafka://a,",
            "kafka://a:0",
            "kafka://a:x",
            "kafka://a:65536",
            "kafka://a/topic",
            "kafka://[::1:9",
        ),
        *("kafka://a;b", "kafka://a b", "kafka://a|b", "kafka://a%3Fb", "kafka://a..b", "kafka://[a]", "kafka://[]"),
    ],
)
def test_a_url_without_proper_servers_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="Write kafka://HOST"):
        read(url)


def test_user_and_password_come_from_the_url_decoded() -> None:
    options = read("kafka://t%40m:p%2Fw%3A@a?sasl=SCRAM-SHA-256")
    assert (options.user, options.password) == ("t@m", "p/w:")


def test_the_url_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUSTMQ_KAFKA_CLIENT_ID", "environment")
    monkeypatch.setenv("RUSTMQ_KAFKA_THREAD", "true")
    monkeypatch.setenv("KAFKA_THREAD", "no")
    assert read("kafka://a").client_id == "environment"
    options = read("kafka://a?client_id=url")
    assert (options.client_id, options.thread) == ("url", True)


def test_what_stands_before_the_at_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUSTMQ_KAFKA_USER", "environment")
    monkeypatch.setenv("RUSTMQ_KAFKA_PASSWORD", "hush")
    options = read("kafka://team@a?sasl=PLAIN")
    assert (options.user, str.encode(options.password or "")) == ("team", b"hush")
    options = read("kafka://team:mine@a?sasl=PLAIN")
    assert (options.user, str.encode(options.password or "")) == ("team", b"mine")


@pytest.mark.parametrize(
    ("options", "field", "hint"),
    [
        ({"synk": "1"}, "synk", "sasl"),
        ({"client": "x"}, "client", "client_id"),
        ({"tls": "perhaps"}, "tls", "encrypted"),
        ({"sasl": "GSSAPI"}, "sasl", "proven"),
        ({"session_timeout": "0"}, "session_timeout", "> 0"),
        ({"fetch_max_wait": "soon"}, "fetch_max_wait", "broker keeps"),
        ({"partitions": "1.5", "create": "true"}, "partitions", "create"),
        ({"isolation": "serializable"}, "isolation", "transactions"),
        ({"compression": "brotli"}, "compression", "are compressed"),
        ({"ca": "ca.pem"}, "ca", "tls=true"),
        ({"check_hostname": "false"}, "check_hostname", "tls=true"),
        ({"tls": "true", "key": "key.pem"}, "key", "certificate=PATH"),
        ({"user": "u", "password": "p"}, "user", "sasl=SCRAM-SHA-512"),
        ({"password": "p"}, "password", "Name the user"),
        ({"sasl": "PLAIN"}, "sasl", "RUSTMQ_KAFKA_USER"),
        ({"sasl": "PLAIN", "user": "u"}, "sasl", "RUSTMQ_KAFKA_PASSWORD"),
        ({"partitions": "3"}, "partitions", "create=true"),
        ({"dead_letter_headers": "springs"}, "dead_letter_headers", "spring"),
        ({"dead_letter_headers": "spring,spring"}, "dead_letter_headers", "spring"),
    ],
)
def test_a_wrong_option_names_itself_and_the_fix(options: dict[str, str], field: str, hint: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        read("kafka://a", options)

    assert refusal.value.field == field
    assert hint in refusal.value.fix


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(ConfigurationError) as refusal:
        KafkaOptions(servers=SERVERS, ca="ca.pem", sasl="PLAIN", partitions=2)

    assert [refusal.value.field, *(other.field for other in refusal.value.also)] == ["ca", "sasl", "partitions"]


def test_a_user_that_is_given_twice_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="given twice"):
        read("kafka://u:p@a?user=v&sasl=PLAIN")


def test_compression_says_which_package_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rustmq_sdk.drivers.kafka.options.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match="pip install cramjam"):
        KafkaOptions(servers=SERVERS, compression="zstd")

    assert KafkaOptions(servers=SERVERS, compression="gzip").compression == "gzip"
    monkeypatch.setattr("rustmq_sdk.drivers.kafka.options.find_spec", lambda name: importlib.util.find_spec("json"))
    assert KafkaOptions(servers=SERVERS, compression="zstd").compression == "zstd"


def test_dialects_are_read_in_order() -> None:
    assert KafkaOptions(servers=SERVERS, dead_letter_headers="spring, rustmq").dialects == ("spring", "rustmq")


def test_every_option_may_stand_in_the_url() -> None:
    assert {*OPTIONS, "servers"} == set(KafkaOptions.__struct_fields__)
    assert kafka.OPTIONS is OPTIONS


def test_no_password_is_shown_by_anything() -> None:
    secret = "hush-hush"
    url = f"kafka://team:{secret}@a?sasl=PLAIN&tls=true&certificate=x&key_password={secret}"
    options = read(url)
    client = Client(url)
    shown = [
        options,
        client_settings(KafkaOptions(servers=SERVERS, sasl="PLAIN", user="team", password=secret)),
        client,
        kafka.open(url),
        client._driver,
    ]
    for thing in (*shown, options.password, options.key_password):
        assert secret not in f"{thing!r} {thing!s} {thing}"

    assert options.password is not None
    assert options.password.encode() == secret.encode()


@pytest.mark.parametrize(
    "url",
    [
        "kafka://team:hush-hush@a:b:c?sasl=PLAIN",
        "kafka://team:hush-hush@a?nonsense=1",
        "kafka://team:hush-hush@a",
        "kafka://team:hush-hush@",
        "kafka://team:hush-hush@a?password=hush-hush&sasl=PLAIN",
        "kafka://a?password=hush-hush",
        "kafka://a?password=hush-hush&sasl=XYZ&user=u",
        "kafka://a?key_password=hush-hush",
    ],
)
def test_no_error_shows_the_password(url: str) -> None:
    for make in (kafka.open, Client):
        with pytest.raises(ConfigurationError) as refusal:
            make(url)

        whole = [refusal.value, *refusal.value.also]
        assert not any("hush-hush" in f"{error!r} {error} {error.value!r}" for error in whole)


def test_a_password_that_is_no_text_is_refused_unseen() -> None:
    with pytest.raises(ConfigurationError) as refusal:
        KafkaOptions(servers=SERVERS, password=12345678)  # type: ignore[arg-type]

    assert "12345678" not in str(refusal.value)


def test_settings_say_how_to_connect(tmp_path: Path) -> None:
    assert client_settings(KafkaOptions(servers=("a:1", "b:2"), client_id="me")) == {
        "bootstrap_servers": ["a:1", "b:2"],
        "client_id": "me",
        "security_protocol": "PLAINTEXT",
    }
    settings = client_settings(KafkaOptions(servers=SERVERS, sasl="PLAIN", user="u", password="p"))
    assert settings["security_protocol"] == "SASL_PLAINTEXT"
    assert (settings["sasl_mechanism"], settings["sasl_plain_username"]) == ("PLAIN", "u")
    settings = client_settings(KafkaOptions(servers=SERVERS, tls=True, check_hostname=False))
    assert settings["security_protocol"] == "SSL"
    assert not settings["ssl_context"].check_hostname
    settings = client_settings(KafkaOptions(servers=SERVERS, tls=True, sasl="PLAIN", user="u", password="p"))
    assert settings["security_protocol"] == "SASL_SSL"


@pytest.mark.parametrize(("option", "content"), [("ca", None), ("ca", "no PEM"), ("certificate", None)])
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, option: str, content: str | None) -> None:
    path = tmp_path / "file.pem"
    if content is not None:
        path.write_text(content)

    options = KafkaOptions(servers=SERVERS, tls=True, **{option: str(path)})  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError) as refusal:
        client_settings(options)

    assert (refusal.value.field, refusal.value.value) == (option, str(path))


@pytest.mark.parametrize("url", ["kafka://team:hush-hush", "kafka://team:hush/hush", "kafka://team:hush-hush@"])
def test_a_password_without_a_server_after_it_is_not_printed(url: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        read(url)

    assert "hush" not in f"{refused.value!r} {refused.value}"


def test_options_can_be_copied_with_their_secrets() -> None:
    options = KafkaOptions(servers=SERVERS, sasl="PLAIN", user="u", password="hush")
    for twin in (copy.copy(options), copy.deepcopy(options), pickle.loads(pickle.dumps(options))):
        assert twin == options
        assert "hush" not in repr(twin)


def test_the_page_about_kafka_has_every_option_with_its_default_and_meaning() -> None:
    page = (Path(__file__).parents[2] / "docs" / "kafka.md").read_text(encoding="utf-8")
    for option in msgspec.structs.fields(KafkaOptions):
        row = f"| `{option.name}` | `{option.default!r}` | {meaning_of(KafkaOptions, option.name)} |"
        assert row in page or option.name == "servers"


def test_without_its_client_the_driver_says_what_to_install() -> None:
    program = """
import sys
sys.modules["aiokafka"] = None
from rustmq_sdk import Client, MissingDriver
try:
    Client("kafka://team:hush@a")
except MissingDriver as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "pip install 'rustmq-sdk[kafka]'" in done.stdout
    assert "hush" not in done.stdout
