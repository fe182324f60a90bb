"""Settings in variables of the environment: ``RUSTMQ_<SECTION>_<SETTING>``, for example ``RUSTMQ_CONSUMER_PREFETCH``.

A section is ``consumer``, ``producer``, or the scheme of a driver. Within a section an unknown name is refused by
whoever reads it, except for those that Kubernetes makes of a service's name: a service ``rustmq-consumer`` is
``RUSTMQ_CONSUMER_SERVICE_HOST`` to every pod beside it. Other variables that begin with ``RUSTMQ_`` may be anybody's.
Only one that is nearly a setting of ours is refused.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping

from rustmq_sdk._redaction import HIDDEN
from rustmq_sdk.errors import ConfigurationError

PREFIX = "RUSTMQ_"
NEARLY = 0.8
"""How alike a name and a known one are to be taken for it, by difflib's ratio: of five letters two have changed places.
``server`` and ``consumer`` are 0.43 alike, ``consumer`` and ``producer`` 0.5."""


def variable(section: str, setting: str) -> str:
    """What a setting is called in the environment."""
    return f"{PREFIX}{_NO_LETTER.sub('_', section).upper()}_{setting.upper()}"


_NO_LETTER = re.compile(r"[^A-Za-z0-9]")
"""Of schemes: ``carrier-pigeon`` has ``RUSTMQ_CARRIER_PIGEON_LOFTS``."""


def variables_of(section: str, environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """What the environment (``os.environ`` if None) says in a section, by the names of the settings."""
    begin = variable(section, "")
    given = os.environ if environment is None else environment
    ours = {name.removeprefix(begin): text for name, text in given.items() if name.startswith(begin)}
    return {name.lower(): text for name, text in ours.items() if not _KUBERNETES.fullmatch(name)}


_KUBERNETES = re.compile(r"SERVICE_(HOST|PORT)(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?")
"""What stands after a service's name in the variables that Kubernetes makes of it, in the manner of Docker's links."""


def refuse_misspelt(
    sections: Mapping[str, Collection[str]],
    others: Callable[[], Collection[str]],
    environment: Mapping[str, str] | None = None,
) -> None:
    """Refuses variables whose section nobody knows, where it and the rest are nearly a setting of these.

    Args:
        sections: and the settings that each has.
        others: the sections that somebody else reads, in another program of the same environment perhaps. Asked only
            where there is something to refuse.
        environment: ``os.environ`` if None.

    Raises:
        ConfigurationError: with the name that was probably meant.
    """
    for name in sorted(os.environ if environment is None else environment):
        if not name.startswith(PREFIX) or _belongs(name, sections):
            continue

        meant = next(filter(None, (_meant(name, section, known) for section, known in sections.items())), None)
        if meant is not None and not _belongs(name, others()):
            raise ConfigurationError(
                "there is no such environment variable", field=name, value=HIDDEN, fix=f"Did you mean {meant}?"
            )


def _belongs(name: str, sections: Iterable[str]) -> bool:
    return any(name.startswith(variable(section, "")) for section in sections)


def _meant(name: str, section: str, known: Collection[str]) -> str | None:
    """The setting of a section that a name is nearly the variable of."""
    begin = variable(section, "")
    *head, setting = name.split("_", begin.count("_"))
    if not difflib.get_close_matches("_".join(head[1:]), [begin.removeprefix(PREFIX)[:-1]], cutoff=NEARLY):
        return None

    nearest = difflib.get_close_matches(setting.lower(), known, n=1, cutoff=NEARLY)
    return variable(section, nearest[0]) if nearest else None
