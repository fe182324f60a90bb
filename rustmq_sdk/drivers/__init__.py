"""The drivers by URL scheme. Nothing is imported until a URL names it.

A driver is a module with two names:

``open(url: str) -> Driver``
    makes the driver, without connecting. The URL carries the driver's own options only.
``OPTIONS: tuple[str, ...]``
    the names its URL may have behind the ``?``. One that makes what the URL names (a file) has ``create``: with
    ``create=false`` it refuses instead.

Drivers of other projects announce ``open`` in the entry-point group ``rustmq_sdk.drivers``, under their scheme.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import NamedTuple, cast
from urllib.parse import urlencode

from rustmq_sdk._environment import refuse_misspelt
from rustmq_sdk._urls import Location, locate
from rustmq_sdk.errors import ConfigurationError, MissingDriver
from rustmq_sdk.slots import Driver

ENTRY_POINTS = "rustmq_sdk.drivers"


class BuiltIn(NamedTuple):
    """Where a driver of this package is found.

    Attributes:
        target: ``"module:function"``.
        extra: of the distribution, that brings what the driver needs. None: it needs nothing more.
        needs: the top-level modules that come with ``extra``.
    """

    target: str
    extra: str | None = None
    needs: frozenset[str] = frozenset()


BUILT_IN = {
    "kafka": BuiltIn("rustmq_sdk.drivers.kafka:open", "kafka", frozenset({"aiokafka"})),
    "memory": BuiltIn("rustmq_sdk.drivers.memory:open"),
    "sqlite": BuiltIn("rustmq_sdk.drivers.sqlite:open"),
}


def open_driver(url: str, *, also: Collection[str] = (), create: bool = True) -> Driver:
    """Makes the driver that the URL's scheme names, without connecting it.

    Args:
        url: for example ``"sqlite:///events.db"``.
        also: names of settings that may stand in the URL and are not the driver's (those of consumers and producers).
            The driver does not see them.
        create: False has a driver that would make what the URL names refuse instead.

    Raises:
        ConfigurationError: the URL is malformed, or its scheme or one of its options is unknown, or a variable of the
            environment is nearly one of its options.
        MissingDriver: the driver's client library is not installed.
    """
    location = locate(url)
    target, name = _target(location)
    module = _import(target, location)
    options: tuple[str, ...] = tuple(getattr(module, "OPTIONS", ()))
    _check_options(location, options, also)
    refuse_misspelt({location.scheme: options})
    own = {key: value for key, value in location.options.items() if key in options}
    if not create and "create" in options:
        own["create"] = "false"

    open_ = cast("Callable[[str], Driver]", getattr(module, name))
    try:
        return open_(location.bare + (f"?{urlencode(own)}" if own else ""))
    except ConfigurationError as error:
        if error.field != "url":
            raise

        # The driver got another URL, and an error shows the one that was written.
        raise ConfigurationError(
            error.problem, field="url", value=location.shown, fix=error.fix, also=error.also
        ) from error.__cause__


def _target(location: Location) -> tuple[str, str]:
    """The module and the function behind a scheme."""
    if built_in := BUILT_IN.get(location.scheme):
        module, _, name = built_in.target.partition(":")
        return module, name

    foreign = tuple(entry_points(group=ENTRY_POINTS))
    found = {(point.module, point.attr) for point in foreign if point.name == location.scheme}
    if len(found) == 1:
        return found.pop()

    if found:
        raise ConfigurationError(
            f"several installed packages offer the scheme {location.scheme!r}: "
            + ", ".join(sorted(f"{module}:{name}" for module, name in found)),
            field="url",
            value=location.shown,
            fix="Uninstall all but one of them",
        )

    raise _unknown_scheme(location, foreign)


def _unknown_scheme(location: Location, foreign: Collection[EntryPoint]) -> ConfigurationError:
    known = sorted({*BUILT_IN, *(point.name for point in foreign)})
    nearest = difflib.get_close_matches(location.scheme, known, n=1, cutoff=0.5)
    fix = f"Did you mean {nearest[0]}://?" if nearest else f"Known are {', '.join(f'{name}://' for name in known)}"
    return ConfigurationError(f"no driver answers to {location.scheme}://", field="url", value=location.shown, fix=fix)


def _import(module: str, location: Location) -> object:
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        built_in = BUILT_IN.get(location.scheme)
        missing = (error.name or "").partition(".")[0]
        # Only the absence of the client itself is the user's to mend. A missing module further down is a broken
        # installation or a bug, and hiding its traceback behind advice to install something would send people astray.
        if built_in is None or missing not in built_in.needs:
            raise

        raise MissingDriver(
            f"the {location.scheme} driver needs the package {missing}, which is not installed",
            field="url",
            value=location.shown,
            fix=f"Run: pip install 'rustmq-sdk[{built_in.extra}]' (from a clone: pip install '.[{built_in.extra}]')",
        ) from error


def _check_options(location: Location, options: Collection[str], also: Collection[str]) -> None:
    known = sorted({*options, *also})
    for name in location.options:
        if name in known:
            continue

        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        own = ", ".join(options) or "none"
        raise ConfigurationError(
            f"{location.scheme}:// has no such option",
            field="url",
            value=location.shown,
            fix=f"{name!r}: did you mean {nearest[0]!r}?" if nearest else f"{name!r}: its own options are {own}",
        )
