"""Settings in variables of the environment: ``RUSTMQ_<SECTION>_<SETTING>``, for example ``RUSTMQ_CONSUMER_PREFETCH``.

A section is ``consumer``, ``producer``, or the scheme of a driver. Within a section an unknown name is refused by
whoever reads it. Other variables that begin with ``RUSTMQ_`` may be anybody's: a program's own, or those that
Kubernetes makes of a service's name. Only one that is nearly a setting of ours is refused.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

from rustmq_sdk._redaction import HIDDEN
from rustmq_sdk._settings import name_places
from rustmq_sdk.errors import ConfigurationError

PREFIX = "RUSTMQ_"
SECTIONS = ("consumer", "producer", "kafka", "memory", "sqlite")
"""Those that somebody reads, whether it is now or in another program of the same environment."""
NEARLY = 0.8
"""How alike a name and a known one are to be taken for it, by difflib's ratio: of five letters two have changed places.
``server`` and ``consumer`` are 0.43 alike, ``consumer`` and ``producer`` 0.5."""


def variable(section: str, setting: str) -> str:
    """What a setting is called in the environment."""
    return f"{PREFIX}{section.upper()}_{setting.upper()}"


def variables_of(section: str, environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """What the environment (``os.environ`` if None) says in a section, by the names of the settings."""
    begin = variable(section, "")
    given = os.environ if environment is None else environment
    return {name.removeprefix(begin).lower(): text for name, text in given.items() if name.startswith(begin)}


@contextmanager
def options_of(section: str, *above: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """A driver's options: those of the environment, and what wins over them, the strongest last.

    A ``ConfigurationError`` that is raised inside is noted with the variable that it comes from.
    """
    options = variables_of(section)
    places = {name: f"the environment variable {variable(section, name)}" for name in options}
    for each in above:
        options.update(each)
        for name in each:
            places.pop(name, None)

    try:
        yield options
    except ConfigurationError as error:
        name_places(error, places)
        raise


def refuse_misspelt(sections: Mapping[str, Collection[str]], environment: Mapping[str, str] | None = None) -> None:
    """Refuses variables whose section nobody knows, where it and the rest are nearly a setting of these.

    Args:
        sections: and the settings that each has.
        environment: ``os.environ`` if None.

    Raises:
        ConfigurationError: with the name that was probably meant.
    """
    for name in sorted(os.environ if environment is None else environment):
        if not name.startswith(PREFIX):
            continue

        section, _, setting = name.removeprefix(PREFIX).lower().partition("_")
        if section in SECTIONS or section in sections:
            continue

        meant = _nearest(section, sections)
        known = _nearest(setting, sections[meant]) if meant is not None else None
        if meant is not None and known is not None:
            raise ConfigurationError(
                "there is no such environment variable",
                field=name,
                value=HIDDEN,
                fix=f"Did you mean {variable(meant, known)}?",
            )


def _nearest(name: str, known: Collection[str]) -> str | None:
    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=NEARLY)), None)
