"""How a schema of settings reads values: which type and range each has, and what text means where all there is is text.

msgspec holds the schemas; converting is done here, because a setting may be an offset, a date or a word at once, which
msgspec refuses, and because it would take ``True`` for 1 and a misspelt field for none at all.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import datetime
from functools import cache
from types import NoneType, UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Final,
    Literal,
    NamedTuple,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec

from rustmq_sdk._redaction import HIDDEN, printable, sounds_secret
from rustmq_sdk.errors import ConfigurationError

UNREADABLE: Final = object()
"""What :func:`read` answers where a text is no value of the kind."""
_TRUTH = {"true": True, "1": True, "false": False, "0": False}


class _SpellsItsNames(msgspec.StructMeta):
    """Classes whose keyword arguments are looked at before msgspec sees them: it would raise a bare ``TypeError``."""

    if not TYPE_CHECKING:  # type checkers know the arguments from the fields, as long as they see no other call

        def __call__(cls, *positional: object, **given: object) -> object:  # noqa: N805  # of a metaclass
            unknown = [name for name in given if name not in cls.__struct_fields__]
            if unknown:
                # Not the rules: what a misspelt name leaves at its default need not be what was meant.
                known = {name: value for name, value in given.items() if name not in unknown}
                misspelt = (
                    unknown_name(name, cls.__struct_fields__, cls.prefix, value=given[name]) for name in unknown
                )
                raise_all([*misspelt, *misfits(cls, known)])

            return super().__call__(*positional, **given)


class Rule(NamedTuple):
    """Something that settings have to fulfil together.

    Attributes:
        field: the setting that is blamed.
        wrong: whether it is broken.
        problem: why that cannot work.
        fix: what to do about it, as an instruction.
    """

    field: str
    wrong: bool
    problem: str
    fix: str

    def error(self, value: object) -> ConfigurationError:
        """What to raise where it is broken, by this value of ``field``."""
        return ConfigurationError(self.problem, field=self.field, value=value, fix=self.fix)


class Schema(msgspec.Struct, frozen=True, kw_only=True, metaclass=_SpellsItsNames):
    """Settings that belong together. Each field is ``Annotated[type, about(…)]``.

    A type is ``bool``, ``int``, ``float``, ``str``, ``datetime``, a ``Literal`` of texts, another schema, ``None``, or
    a union of these; anything else can be given in Python only. Making one raises ``ConfigurationError``: for a name
    nobody knows, with the nearest known one; for all values that do not fit; for all rules that are broken.
    """

    prefix = ""
    """Stands before the names in errors, where these settings are part of others. Not annotated: it is no field."""

    def __post_init__(self) -> None:
        raise_all(misfits(type(self), {name: getattr(self, name) for name in self.__struct_fields__}))
        raise_all(rule.error(getattr(self, rule.field)) for rule in self.rules() if rule.wrong)

    def rules(self) -> Iterable[Rule]:
        """What the settings have to fulfil together, to be overridden; each fits by itself when this is called."""
        return ()


def raise_all(errors: Iterable[ConfigurationError]) -> None:
    """Raises the first, which names the others as well, and what they name; does nothing if there are none."""
    found = [part for error in errors for part in (error, *error.also)]
    if not found:
        return

    first, *others = (
        ConfigurationError(part.problem, field=part.field, value=part.value, fix=part.fix) if part.also else part
        for part in found
    )
    raise ConfigurationError(first.problem, field=first.field, value=first.value, fix=first.fix, also=others)


def name_places(error: ConfigurationError, places: Mapping[str, str]) -> None:
    """Notes where each wrong setting was read. One that stands in the program needs none: the traceback shows it."""
    for wrong in (error, *error.also):
        place = places.get(wrong.field.partition(".")[0])
        if place is not None:
            error.add_note(f"{wrong.field}: read from {place}" if error.also else f"Read from {place}")


def about(description: str, **bounds: Any) -> msgspec.Meta:
    """What a setting means, in one line, and its bounds (``ge``, ``gt``)."""
    return msgspec.Meta(description=description, **bounds)


def check_known(name: object, known: Collection[str], prefix: str = "", *, value: object) -> None:
    """Raises ``ConfigurationError`` with the nearest known name for a name nobody knows.

    Args:
        name: that somebody gave.
        known: the names there are.
        prefix: stands before all of them in the error.
        value: what was given under that name; shown, unless the name sounds like a password's.
    """
    if name not in known:
        raise unknown_name(name, known, prefix, value=value)


def unknown_name(name: object, known: Collection[str], prefix: str = "", *, value: object) -> ConfigurationError:
    """What :func:`check_known` raises."""
    nearest = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    fix = f"Did you mean {prefix + nearest[0]!r}?" if nearest else f"Known are {', '.join(known)}"
    shown = HIDDEN if sounds_secret(str(name)) else value
    return ConfigurationError("there is no such setting", field=f"{prefix}{name}", value=shown, fix=fix)


def meaning_of(schema: type[msgspec.Struct], name: str) -> str:
    """A setting's line of documentation."""
    return _meta(schema, name).description or ""


def nested_in(schema: type[Schema], name: str) -> type[Schema] | None:
    """The schema that a setting is of, if it is of one."""
    kind = _kind(schema, name)
    return kind if isinstance(kind, type) and issubclass(kind, Schema) else None


def choices_of(schema: type[msgspec.Struct], name: str) -> str:
    """What a setting may be, in words, where that is one of a few; empty elsewhere."""
    kind = _kind(schema, name)
    return _in_words(kind) if _words_of(kind) else ""


def misfits(schema: type[Schema], values: Mapping[str, object]) -> Iterator[ConfigurationError]:
    """What is wrong with values of these settings, each by itself, in the order of the schema."""
    prefix = schema.prefix
    for name in schema.__struct_fields__:
        if name not in values:
            continue

        value, kind, meta = values[name], _kind(schema, name), _meta(schema, name)
        if not _fits(value, kind):
            yield _refusal(schema, name, value, prefix)
        elif isinstance(value, int | float) and _is_too_small(value, meta):
            least = f">= {meta.ge}" if meta.ge is not None else f"> {meta.gt}"
            yield ConfigurationError(
                f"expected a number {least}",
                field=prefix + name,
                value=value,
                fix=f"{meta.description} Give a number {least}",
            )


def _is_too_small(value: float, meta: msgspec.Meta) -> bool:
    return (meta.ge is not None and value < meta.ge) or (meta.gt is not None and value <= meta.gt)


def from_text(schema: type[msgspec.Struct], name: str, text: str) -> Any:
    """Reads what a URL or the environment says.

    Raises:
        ConfigurationError: the text is no value of that setting.
    """
    kind = _kind(schema, name)
    value = read(text, kind)
    if value is UNREADABLE and not _has_text(kind):
        raise ConfigurationError(
            "cannot be given as text",
            field=name,
            value=HIDDEN,
            fix=f"{meaning_of(schema, name)} Give it in Python, as a keyword argument",
        )

    if value is UNREADABLE:
        raise _refusal(schema, name, text, "")

    return value


def _has_text(kind: Any) -> bool:
    """Whether any value but ``None`` can be read from text."""
    if get_origin(kind) in (Union, UnionType):
        return any(_has_text(one) for one in get_args(kind) if one is not NoneType)

    is_table = isinstance(kind, type) and issubclass(kind, msgspec.Struct)
    return is_table or get_origin(kind) is Literal or kind in _READERS


def read(text: str, kind: Any) -> Any:
    """What the text means as the first of the kind's types that it can be read as, or ``UNREADABLE``."""
    if get_origin(kind) in (Union, UnionType):
        readings = (read(text, one) for one in get_args(kind))
        return next((value for value in readings if value is not UNREADABLE), UNREADABLE)

    if get_origin(kind) is Literal:
        return text if text in get_args(kind) else UNREADABLE

    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        kind = msgspec.Struct

    reader = _READERS.get(kind)
    try:
        return UNREADABLE if reader is None else reader(text)
    except ValueError:
        return UNREADABLE


def _read_number(text: str) -> int:
    if re.fullmatch(r"-?[0-9]+", text) is None:  # int() takes spaces and underscores as well
        raise ValueError(text)

    return int(text)


_READERS: dict[Any, Callable[[str], Any]] = {
    str: str,
    bool: lambda text: _TRUTH.get(text.lower(), UNREADABLE),
    int: _read_number,
    float: float,
    NoneType: lambda text: None if text.lower() in ("none", "null") else UNREADABLE,
    datetime: datetime.fromisoformat,
    msgspec.Struct: lambda text: msgspec.json.decode(text, type=dict[str, Any]),
}


def _fits(value: object, kind: Any) -> bool:
    origin = get_origin(kind)
    if kind is Any:
        return True

    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in get_args(kind))

    if origin is Literal:
        return isinstance(value, str) and value in get_args(kind)

    if isinstance(value, bool):
        return kind is bool

    if kind is float:
        return isinstance(value, int | float) and math.isfinite(value)

    return isinstance(value, origin or kind)


def _refusal(schema: type[msgspec.Struct], name: str, value: object, prefix: str) -> ConfigurationError:
    shown = type(value).__name__ if not isinstance(value, str | float) else printable(value)
    secret = sounds_secret(name)
    return ConfigurationError(
        f"expected {_in_words(_kind(schema, name))}, got {HIDDEN if secret else shown}",
        field=prefix + name,
        value=HIDDEN if secret else value,
        fix=_suggestion(value, _kind(schema, name)) + meaning_of(schema, name),
    )


def _suggestion(value: object, kind: Any) -> str:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        name, default = kind.__struct_fields__[0], kind.__struct_defaults__[0]
        said = msgspec.json.encode({name: default}).decode()
        return (
            f"Write {kind.__name__}({name}={default!r}), in a file a table, in a URL and the environment JSON: {said}. "
        )

    given = value.lower() if isinstance(value, str) else ""
    nearest = difflib.get_close_matches(given, _words_of(kind), n=1, cutoff=0.5)
    return f"Did you mean {nearest[0]!r}? " if nearest else ""


def _words_of(kind: Any) -> tuple[str, ...]:
    """The few values that a setting has names for."""
    if get_origin(kind) is Literal:
        return get_args(kind)

    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else ()
    return tuple(word for one in kinds for word in _words_of(one))


def _in_words(kind: Any) -> str:
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(_in_words(one) for one in get_args(kind))

    if get_origin(kind) is Literal:
        return " or ".join(map(repr, get_args(kind)))

    words = {
        bool: "true or false",
        int: "a whole number",
        float: "a finite number",
        str: "text",
        NoneType: "None",
        datetime: "a date and time",
    }
    target = get_origin(kind) or kind
    return words.get(target) or f"a {target.__name__}"


def _kind(schema: type[msgspec.Struct], name: str) -> Any:
    return get_args(_hints(schema)[name])[0]


def _meta(schema: type[msgspec.Struct], name: str) -> msgspec.Meta:
    meta = get_args(_hints(schema)[name])[1]
    assert isinstance(meta, msgspec.Meta)
    return meta


@cache
def _hints(schema: type[msgspec.Struct]) -> Mapping[str, Any]:
    hints = get_type_hints(schema, include_extras=True)
    assert all(get_origin(hint) is Annotated for hint in hints.values())
    return hints
