"""A schema's settings from all the places they may stand in, merged and validated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from rustmq_sdk._environment import variable, variables_of
from rustmq_sdk._redaction import HIDDEN
from rustmq_sdk._settings import Schema, check_known, from_text, name_places, nested_in
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
        settings = {
            **_checked(schema, file),
            **_read(schema, variables, with_secrets),
            **_read(schema, url, with_secrets),
            **_checked(schema, given),
        }
        return schema(**{name: _nested(schema, name, value) for name, value in settings.items()})
    except ConfigurationError as error:
        places = {name: f"the environment variable {variable(section, name)}" for name in variables}
        if file_name is not None:
            places = {str(name): f"{file_name}, section {section}" for name in file} | places

        above = given.keys() | url.keys()
        name_places(error, {name: place for name, place in places.items() if name not in above})
        raise


def _checked(schema: type[Schema], given: Mapping[str, Any]) -> Mapping[str, Any]:
    for name, value in given.items():
        check_known(name, schema.__struct_fields__, value=value)

    return given


def _read(schema: type[Schema], texts: Mapping[str, str], with_secrets: bool) -> dict[str, Any]:
    for name, text in texts.items():
        check_known(name, schema.__struct_fields__, value=HIDDEN if with_secrets else text)

    return {name: from_text(schema, name, text) for name, text in texts.items()}


def _nested(schema: type[Schema], name: str, value: Any) -> Any:
    """A mapping becomes the schema that stands in its place."""
    nested = nested_in(schema, name)
    if nested is None or not isinstance(value, Mapping):
        return value

    for part, said in value.items():
        check_known(part, nested.__struct_fields__, nested.prefix, value=said)

    return nested(**value)
