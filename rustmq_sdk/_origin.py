"""What a client was given, whatever its form: a URL, a file, a mapping, or nothing but the environment."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rustmq_sdk._redaction import HIDDEN, redact
from rustmq_sdk._settings import check_known
from rustmq_sdk.config import ConsumerConfig, ProducerConfig, Settings, load
from rustmq_sdk.errors import ConfigurationError

_SECTIONS = ("url", "consumer", "producer")
_FILES = (".yaml", ".yml", ".toml")
_SQLITE = b"SQLite format 3\0"
"""What every such file begins with: somebody means the log, and not a file that names it."""


class Origin(NamedTuple):
    """Where a client's settings come from.

    Attributes:
        url: names the driver.
        consumer, producer: settings of lower rank than keyword arguments, URL and environment.
        file: the file they were read from; None where there is none.
    """

    url: str
    consumer: Mapping[str, Any] = {}
    producer: Mapping[str, Any] = {}
    file: str | None = None

    def __repr__(self) -> str:
        return f"<Origin {redact(self.url)}>"

    def settings(self, schema: type[Settings], given: Mapping[str, Any], url: Mapping[str, str]) -> Settings:
        """Merges the settings with keyword arguments and those of the URL; see :func:`rustmq_sdk.config.load`."""
        section = self.consumer if schema is ConsumerConfig else self.producer
        try:
            return load(schema, given, url=url, file=section, file_name=self.file)
        except ConfigurationError as error:
            if self.file is not None and not any(self.file in note for note in getattr(error, "__notes__", ())):
                error.add_note(f"Settings were also read from {self.file}")

            raise


def read_origin(given: str | os.PathLike[str] | Mapping[str, Any] | None) -> Origin:
    """Finds the URL and the settings beside it.

    ``RUSTMQ_URL`` serves where nothing names a URL, and wins over the one in a file, as the environment does for every
    setting. It never wins over a URL that stands in the program.

    Raises:
        ConfigurationError: no URL, a file that cannot be read, or a section nobody knows.
    """
    from_environment = os.environ.get("RUSTMQ_URL") or None
    if isinstance(given, Mapping):
        return _from_sections(given, from_environment, file=None)

    if isinstance(given, os.PathLike) or (isinstance(given, str) and _names_a_file(given)):
        path = Path(given)
        return _from_sections(_read(path), from_environment, file=str(path))

    if given is not None and not isinstance(given, str):
        raise ConfigurationError(
            "expected a URL, a path or a mapping",
            field="url",
            value=given,
            fix='Write for example Client("sqlite:///events.db")',
        )

    return Origin(_required(given or from_environment))


def _names_a_file(text: str) -> bool:
    return "://" not in text and text.lower().endswith(_FILES)


def _from_sections(sections: Mapping[str, Any], from_environment: str | None, *, file: str | None) -> Origin:
    try:
        for name, section in sections.items():
            # Perhaps the URL or the password, under a name of somebody's own.
            check_known(name, _SECTIONS, value=HIDDEN if isinstance(section, str) else section)

        for name in ("consumer", "producer"):
            _check_section(name, sections.get(name))

        written = sections.get("url")
        url = written or from_environment if file is None else from_environment or written
        return Origin(_required(url), sections.get("consumer") or {}, sections.get("producer") or {}, file)
    except ConfigurationError as error:
        if file is not None:
            error.add_note(f"Read from {file}")

        raise


def _check_section(name: str, section: object) -> None:
    if section is None or isinstance(section, Mapping):
        return

    known = ProducerConfig if name == "producer" else ConsumerConfig
    raise ConfigurationError(
        f"expected a section of settings, got {type(section).__name__}",
        field=name,
        value=section,
        fix=f"Write the settings below it, for example {known.__struct_fields__[0]}",
    )


def _required(url: object) -> str:
    if isinstance(url, str) and url:
        return url

    raise ConfigurationError(
        "expected a URL" if url is None else f"expected a URL, got {type(url).__name__}",
        field="url",
        value=redact(url) if isinstance(url, str) else url,
        fix='Give one, for example Client("sqlite:///events.db"), or set RUSTMQ_URL',
    )


def _read(path: Path) -> Mapping[str, Any]:
    try:
        said = path.read_bytes()
        if said.startswith(_SQLITE):
            raise _unreadable(path, "this is an SQLite file, not one of settings", f'Write "sqlite:///{path}"')

        text = said.decode()
        content = tomllib.loads(text) if path.suffix.lower() == ".toml" else _parse_yaml(text, path)
    except (OSError, ValueError) as error:
        if isinstance(error, ConfigurationError):
            raise

        raise _unreadable(path, f"the file cannot be read: {error}", "Give the path of a YAML or TOML file") from error

    if content is None:
        return {}

    if not isinstance(content, Mapping):
        raise _unreadable(path, f"expected sections, got {type(content).__name__}", f"Known are {', '.join(_SECTIONS)}")

    return content


def _parse_yaml(text: str, path: Path) -> Any:
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise _unreadable(
            path,
            "reading YAML needs the package pyyaml",
            "Run: pip install 'rustmq-sdk[yaml]' (from a clone: pip install '.[yaml]'), or write TOML",
        ) from error

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        # The error as text quotes the line, which may be the one with the password; so would its traceback.
        raise _unreadable(path, f"this is not YAML: {_without_quotation(error)}", "Correct the file") from None


def _without_quotation(error: Any) -> str:
    mark = getattr(error, "problem_mark", None)
    where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
    return f"{getattr(error, 'problem', None) or type(error).__name__}{where}"


def _unreadable(path: Path, problem: str, fix: str) -> ConfigurationError:
    return ConfigurationError(problem, field="config", value=str(path), fix=fix)
