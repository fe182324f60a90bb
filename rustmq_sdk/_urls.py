"""A driver's URL taken apart, and how it may be shown: never with a secret in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import parse_qsl

from rustmq_sdk._redaction import STRAY_OPTION, redact
from rustmq_sdk.errors import ConfigurationError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]*\Z")
_SCHEME = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]*)://")


class Location(NamedTuple):
    """A URL taken apart.

    Attributes:
        scheme: in lower case.
        bare: the URL without its query, the scheme in lower case.
        options: what stood after the ``?``, decoded.
        shown: the URL as it may be printed, of its options the names only. For errors about it.
    """

    scheme: str
    bare: str
    options: Mapping[str, str]
    shown: str

    @property
    def address(self) -> str:
        """What stands between ``://`` and ``?``, as it was written."""
        return self.bare.partition("://")[2]

    def __repr__(self) -> str:
        return f"<Location {self.shown}>"


def locate(url: str | Location) -> Location:
    """Takes a URL apart; what is taken apart already is returned as it is.

    Raises:
        ConfigurationError: it has no scheme, a fragment, a ``&name=value`` before the ``?``, or a query that is not
            ``name=value&name=value``.
    """
    if isinstance(url, Location):
        return url

    shown = redact(url)
    match = _SCHEME.match(url)
    if match is None:
        raise ConfigurationError(
            "expected a URL", field="url", value=shown, fix='Write for example "sqlite:///events.db" or "memory://"'
        )

    if "#" in url:
        raise _malformed(shown, "a part after # means nothing here")

    scheme = match["scheme"].lower()
    bare, _, query = f"{scheme}{url[len(scheme) :]}".partition("?")
    if STRAY_OPTION.search(bare.rpartition("@")[2]):
        raise ConfigurationError(
            "the first option stands after a ?, and only the next ones after a &",
            field="url",
            value=shown,
            fix="Write ? for the first &, or %26 for one that is part of a name",
        )

    options: dict[str, str] = {}
    for part in filter(None, query.split("&")):
        ((name, value),) = parse_qsl(part, keep_blank_values=True, strict_parsing=False) or [("", "")]
        if "=" not in part or not _NAME.match(name):
            raise _malformed(shown, "the part after ? is not name=value&name=value")

        if name in options:
            raise ConfigurationError(f"the option {name} is given twice", field="url", value=shown, fix="Give it once")

        options[name] = value

    return Location(scheme, bare, options, shown)


def _malformed(shown: str, problem: str) -> ConfigurationError:
    return ConfigurationError(
        problem, field="url", value=shown, fix="Percent-encode # ? / @ and & inside passwords and values"
    )
