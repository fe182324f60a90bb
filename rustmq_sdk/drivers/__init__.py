"""The drivers by URL scheme. Nothing is imported until a URL names it.

A driver is a module with two names:

``open(url: Location | str) -> Driver``
    makes the driver, without connecting. The location has the driver's own options only;
    :func:`rustmq_sdk.options.read_options` reads them, and those of the environment.
``OPTIONS: tuple[str, ...]``
    the names its URL may have after the ``?``. One that makes what the URL names (a file) has ``create``: with
    ``create=false`` it refuses instead.

Drivers of other projects announce ``open`` in the entry-point group ``rustmq_sdk.drivers``, under their scheme.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import NamedTuple

from rustmq_sdk._environment import refuse_misspelt
from rustmq_sdk.errors import ConfigurationError, MissingDriver
from rustmq_sdk.options import Location, locate
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


class Found(NamedTuple):
    """What a driver's module offers.

    Attributes:
        open: makes the driver, without connecting it.
        options: the names its URL may have after the ``?``.
    """

    open: Callable[[Location], Driver]
    options: tuple[str, ...]


def open_driver(url: str | Location, *, others: Mapping[str, Collection[str]] | None = None) -> Driver:
    """Makes the driver that the URL's scheme names, without connecting it.

    Args:
        url: for example ``"sqlite:///events.db"``.
        others: settings that may stand in the URL and are not the driver's, by their section (``consumer``,
            ``producer``). The driver does not see them.

    Raises:
        ConfigurationError: the URL is malformed, or its scheme or one of its options is unknown, or a variable of the
            environment is nearly a setting of the driver or of ``others``.
        MissingDriver: the driver's client library is not installed.
    """
    location = locate(url)
    found = find_driver(location)
    sections = {location.scheme: found.options, **(others or {})}
    _check_options(location, found.options, sections.values())
    refuse_misspelt(sections, _schemes)
    own = {name: text for name, text in location.options.items() if name in found.options}
    return found.open(location._replace(options=own))


def find_driver(location: Location) -> Found:
    """Imports the driver's module; raises what :func:`open_driver` raises."""
    target, name = _target(location)
    module = _import(target, location)
    return Found(getattr(module, name), tuple(getattr(module, "OPTIONS", ())))


def _target(location: Location) -> tuple[str, str]:
    """The module and the function behind a scheme."""
    if built_in := BUILT_IN.get(location.scheme):
        module, _, name = built_in.target.partition(":")
        return module, name

    foreign = entry_points(group=ENTRY_POINTS, name=location.scheme)
    found = {(point.module, point.attr) for point in foreign}
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

    raise _unknown_scheme(location)


def _schemes() -> Collection[str]:
    """All there are, those of other projects as well."""
    return {*BUILT_IN, *(point.name for point in entry_points(group=ENTRY_POINTS))}


def _unknown_scheme(location: Location) -> ConfigurationError:
    known = sorted(_schemes())
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


def _check_options(location: Location, own: Collection[str], all_of_them: Iterable[Collection[str]]) -> None:
    known = sorted({name for names in all_of_them for name in names})
    for name in location.options:
        if name in known:
            continue

        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        raise ConfigurationError(
            f"{location.scheme}:// has no such option",
            field="url",
            value=location.shown,
            fix=f"{name!r}: did you mean {nearest[0]!r}?"
            if nearest
            else f"{name!r}: its own options are {', '.join(own) or 'none'}",
        )
