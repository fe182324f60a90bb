"""A schema's settings from all the places they may stand in, merged and validated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from rustmq_sdk._environment import variable, variables_of
from rustmq_sdk._redaction import HIDDEN
from rustmq_sdk._settings import Schema, check_known, from_text, misfits, name_places, nested_in, raise_all
from rustmq_sdk.errors import ConfigurationError

S = TypeVar("S", bound=Schema)


def load_settings(
    schema: type[S],
    section: str,
    *,
    given: Mapping[str, Any],
    url: Mapping[str, str],
    file: Mapping[str, Any],
    file_name: str | None = None,
    environment: Mapping[str, str] | None = None,
    with_secrets: bool = False,
) -> S:
    """Merges the places, of which the first that names a setting wins: ``given``, ``url``, the environment, ``file``.

    In the URL and the environment everything is text, and read as what the setting is: ``"5"`` as 5, ``"false"`` as
    False, a nested schema as a JSON object. Elsewhere a value has the right type already, or is refused.

    Args:
        schema: of the settings.
        section: in the environment, see :mod:`rustmq_sdk._environment`, and in a file.
        given: what wins over all the others.
        url: options of the URL.
        file: the section of a file.
        file_name: where ``file`` was read from, for errors.
        environment: ``os.environ`` if None.
        with_secrets: an unknown name may be that of a password, misspelt: its value is not shown.

    Raises:
        ConfigurationError: all that is wrong with the settings; its notes say where each wrong one was read.
    """
    variables = variables_of(section, environment)
    try:
        settings = _merged(schema, [(file, False), (variables, True), (url, True), (given, False)], with_secrets)
        return schema(**settings)
    except ConfigurationError as error:
        places = {name: f"the environment variable {variable(section, name)}" for name in variables}
        if file_name is not None:
            places = {str(name): f"{file_name}, section {section}" for name in file} | places

        above = given.keys() | url.keys()
        name_places(error, {name: place for name, place in places.items() if name not in above})
        raise


def _merged(
    schema: type[Schema], places: Sequence[tuple[Mapping[str, Any], bool]], with_secrets: bool
) -> dict[str, Any]:
    """What the places say, of lower rank first, each with whether it is all text; of the right names and types."""
    wrong: list[ConfigurationError] = []
    settings: dict[str, Any] = {}
    for said, is_text in places:
        for name, value in said.items():
            settings.pop(name, None)
            try:
                check_known(name, schema.__struct_fields__, value=HIDDEN if with_secrets and is_text else value)
                settings[name] = _nested(schema, name, from_text(schema, name, value) if is_text else value)
            except ConfigurationError as error:
                wrong.append(error)

    # Only where something is wrong already: the schema finds all of that by itself.
    raise_all([*wrong, *misfits(schema, settings)] if wrong else ())
    return settings


def _nested(schema: type[Schema], name: str, value: Any) -> Any:
    """A mapping becomes the schema that stands in its place."""
    nested = nested_in(schema, name)
    if nested is None or not isinstance(value, Mapping):
        return value

    for part, said in value.items():
        if not isinstance(part, str):
            check_known(part, nested.__struct_fields__, nested.prefix, value=said)

    return nested(**value)
