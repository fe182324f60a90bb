"""One schema: its defaults, its bounds, where values come from, and what is refused."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar, get_args, get_origin, get_type_hints

import msgspec
import pytest

from rustmq_sdk import ConfigurationError, ConsumerConfig, ConsumerOptions, ProducerConfig, ProducerOptions, RetryPolicy
from rustmq_sdk.config import describe, fields_of, load
from rustmq_sdk.drivers.kafka.options import KafkaOptions
from rustmq_sdk.drivers.memory import MemoryOptions
from rustmq_sdk.drivers.sqlite import SqliteOptions

MIB = 1024 * 1024


def consumer(given: dict[str, Any] | None = None, **places: Any) -> ConsumerConfig:
    return load(ConsumerConfig, given or {}, **{"environment": {}, **places})


def test_the_consumers_defaults_are_the_documented_ones() -> None:
    assert msgspec.structs.asdict(ConsumerConfig()) == {
        "group": None,
        "start": "earliest",
        "auto_commit": True,
        "commit_interval": 1.0,
        "commit_every": 5000,
        "max_in_flight": 10_000,
        "max_in_flight_bytes": 64 * MIB,
        "prefetch": 1000,
        "max_uncommitted": 100_000,
        "max_span": 100_000,
        "retry": RetryPolicy(
            max_attempts=5, initial=0.5, multiplier=2, max_delay=60, jitter="full", fatal=(), overrides={}, wait=None
        ),
        "dead_letter_topic": None,
        "dead_letters": None,
        "state_store": None,
        "on_lost": "stop",
        "close_timeout": 25,
        "commit_timeout": 10,
        "ack_timeout": None,
        "stall_after": 60,
        "lease": 30,
        "cache_messages": 1000,
        "cache_ttl": 300,
        "cache_bytes": 64 * MIB,
        "circuit_failures": 5,
        "circuit_open": 60,
    }


def test_the_producers_defaults_are_the_documented_ones() -> None:
    assert msgspec.structs.asdict(ProducerConfig()) == {
        "linger": 0.005,
        "batch_size": 500,
        "max_buffered": 10_000,
        "send_timeout": 30,
    }


@pytest.mark.parametrize(("schema", "options"), [(ConsumerConfig, ConsumerOptions), (ProducerConfig, ProducerOptions)])
def test_the_options_for_editors_are_the_schema(schema: type[msgspec.Struct], options: Any) -> None:
    of_schema = {name: get_args(hint)[0] for name, hint in get_type_hints(schema, include_extras=True).items()}
    assert get_type_hints(options) == of_schema
    assert options.__total__ is False


@pytest.mark.parametrize(
    "schema", [ConsumerConfig, ProducerConfig, RetryPolicy, KafkaOptions, MemoryOptions, SqliteOptions]
)
def test_every_setting_says_by_itself_what_it_means_and_in_which_unit(schema: type[msgspec.Struct]) -> None:
    """Errors show one description alone, without those that stand around it in the schema."""
    units = r"Seconds\b" if schema is not RetryPolicy else r"(Seconds|Factor)\b"
    for name, hint in get_type_hints(schema, include_extras=True).items():
        assert get_origin(hint) is Annotated
        kind, meta = get_args(hint)[:2]
        assert re.match(r"(?!(Their|Its?|For|Of|The|They)\b)[A-Z].*\.$", meta.description), name
        if kind in (float, float | None):
            assert re.match(units, meta.description), name

        if kind in (int, int | None):
            assert re.match(r"(Bytes|Number|Times)\b", meta.description), name
            assert meta.description.startswith("Bytes") == ("bytes" in name), name


def test_a_refused_number_is_told_what_it_counts() -> None:
    with pytest.raises(ConfigurationError) as caught:
        ConsumerConfig(cache_ttl=0)

    assert str(caught.value) == (
        "cache_ttl=0: expected a number > 0. Seconds that a message body is kept in memory for retries. "
        "Give a number > 0"
    )


def test_the_schema_describes_itself_as_a_table() -> None:
    table = describe(ProducerConfig)
    assert "| `linger` | `0.005` | Seconds that a message of send_nowait() waits for others to be sent with. |" in table
    assert describe(ConsumerConfig).count("\n") == len(fields_of(ConsumerConfig)) + 1


class TestOrder:
    """Keyword argument, URL, environment, file, default: the first of these wins."""

    file: ClassVar[dict[str, Any]] = {"prefetch": 1}
    environment: ClassVar[dict[str, str]] = {"RUSTMQ_CONSUMER_PREFETCH": "2"}
    url: ClassVar[dict[str, str]] = {"prefetch": "3"}

    def test_a_keyword_argument_wins_over_the_url(self) -> None:
        assert consumer({"prefetch": 4}, url=self.url, environment=self.environment, file=self.file).prefetch == 4

    def test_the_url_wins_over_the_environment(self) -> None:
        assert consumer(url=self.url, environment=self.environment, file=self.file).prefetch == 3

    def test_the_environment_wins_over_the_file(self) -> None:
        assert consumer(environment=self.environment, file=self.file).prefetch == 2

    def test_the_file_wins_over_the_default(self) -> None:
        assert consumer(file=self.file).prefetch == 1

    def test_places_are_merged_setting_by_setting(self) -> None:
        config = consumer({"group": "g"}, url={"lease": "60"}, environment=self.environment, file={"commit_every": 7})
        assert (config.group, config.lease, config.prefetch, config.commit_every) == ("g", 60, 2, 7)

    def test_none_as_a_keyword_argument_wins_too(self) -> None:
        assert consumer({"group": None}, file={"group": "g"}).group is None

    def test_the_real_environment_is_read_where_none_is_given(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RUSTMQ_PRODUCER_BATCH_SIZE", "17")
        assert load(ProducerConfig, {}).batch_size == 17
        assert ConsumerConfig().prefetch == 1000


class TestText:
    """In URLs and the environment all is text, and read as what the setting is."""

    @pytest.mark.parametrize(
        ("name", "text", "value"),
        [
            ("prefetch", "5", 5),
            ("commit_interval", "0.25", 0.25),
            ("commit_interval", "2", 2.0),
            ("auto_commit", "false", False),
            ("auto_commit", "True", True),
            ("auto_commit", "0", False),
            ("group", "7", "7"),
            ("group", "none", "none"),
            ("ack_timeout", "none", None),
            ("ack_timeout", "12.5", 12.5),
            ("on_lost", "dead_letter", "dead_letter"),
            ("start", "latest", "latest"),
            ("start", "120", 120),
            ("start", "2024-05-01T12:00:00Z", datetime(2024, 5, 1, 12, tzinfo=UTC)),
            ("start", "2024-05-01T12:00:00+00:00", datetime(2024, 5, 1, 12, tzinfo=UTC)),
            ("retry", '{"max_attempts": 3, "jitter": "none"}', RetryPolicy(max_attempts=3, jitter="none")),
        ],
    )
    def test_text_is_read_as_the_settings_type(self, name: str, text: str, value: object) -> None:
        for config in (consumer(url={name: text}), consumer(environment={f"RUSTMQ_CONSUMER_{name.upper()}": text})):
            assert getattr(config, name) == value
            assert type(getattr(config, name)) is type(value)

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("prefetch", "many"),
            ("prefetch", "1_000"),
            ("prefetch", " 5"),
            ("prefetch", "5.0"),
            ("prefetch", ""),
            ("commit_interval", "nan"),
            ("commit_interval", "inf"),
            ("commit_interval", "1s"),
            ("auto_commit", "no"),
            ("on_lost", "ignore"),
            ("start", "yesterday"),
            ("start", "-1"),
            ("start", "2024-05-01"),
            ("retry", "5"),
            ("retry", "{not json"),
            ("retry", '{"max_attempts": 0}'),
            ("group", ""),
            ("dead_letters", "queue"),
        ],
    )
    def test_text_that_cannot_be_read_is_refused_by_name_and_value(self, name: str, text: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            consumer(url={name: text})

        assert caught.value.field.partition(".")[0] == name
        assert caught.value.fix

    def test_what_can_be_given_in_python_only_says_so(self) -> None:
        with pytest.raises(ConfigurationError, match=r"cannot be given as text.*Give it in Python") as caught:
            consumer(url={"dead_letters": "queue"})

        assert (caught.value.field, "queue" in str(caught.value)) == ("dead_letters", False)

    @pytest.mark.parametrize(("name", "value"), [("prefetch", "5"), ("lease", "60"), ("auto_commit", "true")])
    def test_text_is_no_number_in_python_or_in_a_file(self, name: str, value: str) -> None:
        places: tuple[dict[str, Any], ...] = ({"given": {name: value}}, {"given": {}, "file": {name: value}})
        for place in places:
            with pytest.raises(ConfigurationError, match=name):
                load(ConsumerConfig, environment={}, **place)


class TestTypes:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("prefetch", True),
            ("prefetch", 5.0),
            ("prefetch", None),
            ("lease", True),
            ("lease", float("nan")),
            ("lease", float("inf")),
            ("auto_commit", 1),
            ("group", 5),
            ("group", b"g"),
            ("start", True),
            ("start", 1.5),
            ("on_lost", None),
            ("retry", RetryPolicy),
            ("retry", 3),
            ("dead_letters", 5),
        ],
    )
    def test_a_value_of_the_wrong_type_is_refused_wherever_the_config_is_made(self, name: str, value: Any) -> None:
        with pytest.raises(ConfigurationError) as by_name:
            consumer({name: value})

        with pytest.raises(ConfigurationError) as by_class:
            ConsumerConfig(**{name: value})

        assert by_name.value.field == by_class.value.field == name

    def test_a_whole_number_will_do_where_a_fraction_may_stand(self) -> None:
        assert ConsumerConfig(lease=31).lease == 31

    def test_the_message_says_what_was_expected_what_came_and_what_it_is_for(self) -> None:
        with pytest.raises(ConfigurationError) as caught:
            ConsumerConfig(prefetch="many")  # type: ignore[arg-type]

        assert str(caught.value) == (
            "prefetch='many': expected a whole number, got 'many'. "
            "Number of messages that are fetched ahead and wait to be handed out."
        )


class TestChoices:
    @pytest.mark.parametrize(
        ("schema", "name", "value", "meant"),
        [
            (ConsumerConfig, "start", "earlist", "earliest"),
            (ConsumerConfig, "start", "LATEST", "latest"),
            (ConsumerConfig, "on_lost", "dead-letter", "dead_letter"),
            (RetryPolicy, "jitter", "ful", "full"),
        ],
    )
    def test_a_misspelt_value_is_refused_with_the_nearest_one(
        self, schema: type[Any], name: str, value: str, meant: str
    ) -> None:
        with pytest.raises(ConfigurationError, match=f"Did you mean '{meant}'"):
            schema(**{name: value})

    def test_from_a_url_as_well(self) -> None:
        with pytest.raises(ConfigurationError, match="Did you mean 'dead_letter'"):
            consumer(url={"on_lost": "dead_leter"})

    @pytest.mark.parametrize("value", ["whenever", None, 1.5, ["earliest", "latest"]])
    def test_a_value_like_no_other_is_refused_with_all_there_are(self, value: Any) -> None:
        with pytest.raises(ConfigurationError, match="expected 'earliest' or 'latest' or 'error' or a whole") as caught:
            ConsumerConfig(start=value)

        assert "Did you mean" not in str(caught.value)

    def test_the_table_lists_them(self) -> None:
        assert "Takes 'stop' or 'dead_letter'. |" in describe(ConsumerConfig)
        assert "Takes 'full' or 'none'. |" in describe(RetryPolicy)


class TestBounds:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("max_in_flight", 0),
            ("prefetch", 0),
            ("commit_every", -1),
            ("commit_interval", 0),
            ("close_timeout", 0),
            ("lease", -1),
            ("cache_messages", -1),
            ("circuit_failures", 0),
        ],
    )
    def test_a_value_below_its_bound_is_refused(self, name: str, value: float) -> None:
        with pytest.raises(ConfigurationError, match=rf"^{name}=.*expected a number (>|>=) "):
            ConsumerConfig(**{name: value})  # type: ignore[arg-type]

    @pytest.mark.parametrize(("name", "value"), [("cache_messages", 0), ("cache_bytes", 0), ("prefetch", 1)])
    def test_a_value_on_its_bound_is_fine(self, name: str, value: int) -> None:
        assert getattr(consumer({name: value}), name) == value

    def test_a_producer_may_not_linger_a_negative_time(self) -> None:
        assert ProducerConfig(linger=0).linger == 0
        with pytest.raises(ConfigurationError, match="linger"):
            ProducerConfig(linger=-0.001)


class TestContradictions:
    @pytest.mark.parametrize(
        ("settings", "field"),
        [
            ({"close_timeout": 30}, "close_timeout"),
            ({"lease": 20}, "close_timeout"),
            ({"lease": 26, "commit_timeout": 26}, "commit_timeout"),
            ({"ack_timeout": 0}, "ack_timeout"),
            ({"dead_letters": print, "dead_letter_topic": "t"}, "dead_letters"),
            ({"dead_letter_topic": ""}, "dead_letter_topic"),
            ({"group": ""}, "group"),
            ({"start": -1}, "start"),
            ({"start": datetime(2024, 1, 1)}, "start"),  # noqa: DTZ001 - that it has no zone is the point
        ],
    )
    def test_settings_that_cannot_hold_together_are_refused(self, settings: dict[str, Any], field: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            consumer(settings)

        assert caught.value.field == field

    def test_all_that_is_wrong_is_said_at_once(self) -> None:
        with pytest.raises(ConfigurationError) as caught:
            consumer({"lease": 5, "ack_timeout": 0, "group": ""})

        fields = [error.field for error in (caught.value, *caught.value.also)]
        assert fields == ["close_timeout", "commit_timeout", "ack_timeout", "group"]
        assert str(caught.value).count(". Also ") == 3
        assert all(str(error) in str(caught.value) for error in caught.value.also)

    def test_values_that_do_not_fit_are_said_at_once_and_before_what_follows_from_them(self) -> None:
        with pytest.raises(ConfigurationError) as caught:
            ConsumerConfig(lease="short", prefetch=0, close_timeout=100)  # type: ignore[arg-type]

        assert [error.field for error in (caught.value, *caught.value.also)] == ["prefetch", "lease"]

    def test_each_wrong_variable_of_the_environment_is_named(self) -> None:
        variables = {"RUSTMQ_CONSUMER_CLOSE_TIMEOUT": "50", "RUSTMQ_CONSUMER_COMMIT_TIMEOUT": "60"}
        with pytest.raises(ConfigurationError) as caught:
            consumer(environment=variables)

        assert [note.rpartition(" ")[2] for note in caught.value.__notes__] == list(variables)

    def test_a_batch_larger_than_the_buffer_is_refused(self) -> None:
        with pytest.raises(ConfigurationError, match="batch_size=600"):
            ProducerConfig(batch_size=600, max_buffered=500)

    def test_a_slot_or_a_callable_will_do_for_dead_letters(self) -> None:
        class Slot:
            def put(self) -> None: ...

        assert consumer({"dead_letters": (slot := Slot())}).dead_letters is slot
        assert consumer({"dead_letters": print}).dead_letters is print


class TestUnknownNames:
    @pytest.mark.parametrize(
        "places",
        [
            {"given": {"prefech": 5}},
            {"given": {}, "url": {"prefech": "5"}},
            {"given": {}, "environment": {"RUSTMQ_CONSUMER_PREFECH": "5"}},
            {"given": {}, "file": {"prefech": 5}},
        ],
    )
    def test_a_misspelt_name_is_refused_with_the_nearest_known_one(self, places: dict[str, Any]) -> None:
        with pytest.raises(ConfigurationError, match=r"^prefech='?5'?: .*Did you mean 'prefetch'"):
            load(ConsumerConfig, **{"environment": {}, **places})

    def test_a_name_like_no_other_is_refused_with_all_known_ones(self) -> None:
        with pytest.raises(ConfigurationError, match="Known are linger, batch_size, max_buffered, send_timeout"):
            load(ProducerConfig, {"zzz": 1}, environment={})

    @pytest.mark.parametrize(
        ("schema", "misspelt", "meant"),
        [
            (RetryPolicy, "max_attempt", "retry.max_attempts"),
            (ConsumerConfig, "prefech", "prefetch"),
            (ProducerConfig, "batchsize", "batch_size"),
        ],
    )
    def test_a_misspelt_argument_of_a_class_is_refused_with_the_nearest_known_one(
        self, schema: type[Any], misspelt: str, meant: str
    ) -> None:
        with pytest.raises(ConfigurationError, match=f"Did you mean '{meant}'") as caught:
            schema(**{misspelt: 3})

        assert caught.value.field.endswith(misspelt)
        assert caught.value.value == 3

    def test_all_misspelt_names_are_said_at_once_and_hide_no_wrong_value(self) -> None:
        with pytest.raises(ConfigurationError) as caught:
            load(
                ConsumerConfig,
                {"prefetchh": 1, "leese": 3, "lease": -1, "retry": {"max_attempt": 5, "initial": -1}},
                url={"max_spam": "7", "max_span": "x"},
                file={"gruop": "g"},
                environment={"RUSTMQ_CONSUMER_PREFECH": "5"},
            )

        errors = [caught.value, *caught.value.also]
        assert sorted(error.field for error in errors) == [
            "gruop",
            "lease",
            "leese",
            "max_spam",
            "max_span",
            "prefech",
            "prefetchh",
            "retry.initial",
            "retry.max_attempt",
        ]
        assert all(not error.also for error in errors[1:])
        for error in errors[1:]:
            assert str(caught.value).count(str(error).removesuffix(".")) == 1

        assert [note.rpartition(" ")[2] for note in caught.value.__notes__] == ["RUSTMQ_CONSUMER_PREFECH"]

    def test_what_a_misspelt_name_leaves_at_its_default_contradicts_nothing(self) -> None:
        with pytest.raises(ConfigurationError) as caught:
            load(ConsumerConfig, {"leese": 100, "close_timeout": 50}, environment={})

        assert (caught.value.field, caught.value.also) == ("leese", ())

    def test_a_class_names_all_that_is_misspelt_or_does_not_fit(self) -> None:
        with pytest.raises(ConfigurationError) as caught:
            RetryPolicy(max_attempt=5, intial=2, multiplier=0)  # type: ignore[call-arg]  # that is the mistake

        fields = [error.field for error in (caught.value, *caught.value.also)]
        assert fields == ["retry.max_attempt", "retry.intial", "retry.multiplier"]

    def test_a_name_in_a_file_that_is_no_text_is_refused(self) -> None:
        with pytest.raises(ConfigurationError, match="1=2"):
            consumer(file={1: 2})

    def test_what_is_no_retry_policy_is_told_how_one_is_written(self) -> None:
        said = (
            r"""expected a RetryPolicy, got .*\. Write RetryPolicy\(max_attempts=5\), .* JSON: {"max_attempts":5}\."""
        )
        with pytest.raises(ConfigurationError, match=said):
            consumer({"retry": 3})

        with pytest.raises(ConfigurationError, match=said):
            consumer(environment={"RUSTMQ_CONSUMER_RETRY": "max_attempts=8"})

    def test_a_misspelt_part_of_the_retry_policy_is_refused(self) -> None:
        with pytest.raises(ConfigurationError, match=r"Did you mean 'retry\.max_attempts'"):
            consumer(file={"retry": {"max_attempt": 3}})

    def test_other_variables_of_the_environment_are_none_of_our_business(self) -> None:
        assert consumer(environment={"RUSTMQ_URL": "x", "PREFETCH": "1", "RUSTMQ_PRODUCER_X": "1"}) == ConsumerConfig()


class TestRetryPolicy:
    def test_a_section_of_a_file_is_a_policy(self) -> None:
        assert consumer(file={"retry": {"max_attempts": 3, "max_delay": 5}}).retry == RetryPolicy(
            max_attempts=3, max_delay=5
        )

    @pytest.mark.parametrize(
        ("settings", "field"),
        [
            ({"max_attempts": 0}, "retry.max_attempts"),
            ({"max_attempts": True}, "retry.max_attempts"),
            ({"multiplier": 0.5}, "retry.multiplier"),
            ({"jitter": "some"}, "retry.jitter"),
            ({"fatal": ValueError}, "retry.fatal"),
            ({"fatal": ("ValueError",)}, "retry.fatal[0]"),
            ({"fatal": (KeyboardInterrupt,)}, "retry.fatal[0]"),
            ({"overrides": {ValueError: 3}}, "retry.overrides[ValueError]"),
            ({"overrides": {"ValueError": RetryPolicy()}}, "retry.overrides"),
            ({"wait": 3}, "retry.wait"),
        ],
    )
    def test_a_policy_that_cannot_work_is_refused(self, settings: dict[str, Any], field: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            RetryPolicy(**settings)

        assert caught.value.field == field

    def test_a_policy_of_exceptions_and_strategies_is_fine(self) -> None:
        policy = RetryPolicy(fatal=(ValueError,), overrides={OSError: RetryPolicy(max_attempts=9)}, wait=lambda _: 1.0)
        assert consumer({"retry": policy}).retry is policy


@pytest.mark.parametrize("schema", [ConsumerConfig, ProducerConfig, RetryPolicy])
def test_the_page_of_settings_says_what_the_schema_says(schema: type[Any]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "settings.md").read_text(encoding="utf-8")
    assert describe(schema) in page


@pytest.mark.parametrize("variable", ["RUSTMQ_CONSUMER_PREFETCH", "RUSTMQ_CONSUMER_PREFECH"])
def test_an_error_from_the_environment_names_the_variable(variable: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(ConsumerConfig, {}, environment={variable: "-3"})

    assert caught.value.__notes__ == [f"Read from the environment variable {variable}"]


def test_an_error_within_a_variable_names_it() -> None:
    with pytest.raises(ConfigurationError, match=r"retry\.max_attempt=3") as caught:
        load(ConsumerConfig, {}, environment={"RUSTMQ_CONSUMER_RETRY": '{"max_attempt": 3}'})

    assert caught.value.__notes__ == ["Read from the environment variable RUSTMQ_CONSUMER_RETRY"]


def test_an_error_from_a_file_names_file_and_section() -> None:
    with pytest.raises(ConfigurationError, match=r"^goup='billing': ") as caught:
        load(ConsumerConfig, {}, file={"goup": "billing"}, file_name="settings.toml", environment={})

    assert caught.value.__notes__ == ["Read from settings.toml, section consumer"]


def test_of_several_errors_each_names_its_place() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(
            ConsumerConfig,
            {"lease": -1},
            file={"prefetch": 0, "cache_ttl": 0, "lease": 30},
            file_name="settings.toml",
            environment={"RUSTMQ_CONSUMER_PREFETCH": "-3"},
        )

    assert sorted(caught.value.__notes__) == [
        "cache_ttl: read from settings.toml, section consumer",
        "prefetch: read from the environment variable RUSTMQ_CONSUMER_PREFETCH",
    ]


def test_an_error_that_overrules_the_environment_does_not_blame_it() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(ConsumerConfig, {"prefetch": -3}, environment={"RUSTMQ_CONSUMER_PREFETCH": "5"})

    assert not hasattr(caught.value, "__notes__")
