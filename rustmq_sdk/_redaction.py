"""What may be printed of a URL: never a password, and of an option that nobody knows its name only.

A misspelt ``?passwrd=…`` is refused by an error, and that error must not print what stands after it. So an option is
shown in full only where it is known, and does not sound like a secret.
"""

from __future__ import annotations

import re
from collections.abc import Collection

HIDDEN = "***"

# Greedy up to the last "@": a password with a raw "/", "?" or "@" in it makes a malformed URL, and the error about that
# must not print the password either. Too much hidden is an ugly message, too little a leak.
_CREDENTIALS = re.compile(r"(?<=://)(?P<user>[^/?#@:]*)(?P<secret>:.*)?@", re.DOTALL)
# Where the "@host" was forgotten, the password stands where a port would.
_STRAY_PASSWORD = re.compile(r"(?<=://)(?P<user>[^/@:,\[]+):(?!\d*(?:[/,]|$))[^@]*$", re.DOTALL)
STRAY_OPTION = re.compile(r"&(?P<name>[A-Za-z_][A-Za-z0-9_.\-]*)=[^&]*")
_SECRET = re.compile(r"pass|pwd|secret|token|api_?key|credential|auth", re.IGNORECASE)
# After something else that somebody took for a "?" or "&"; and what sounds like a secret after anything.
_STRAY_SECRET = re.compile(
    r"(?:(?<=[;|\s])|(?<=%[0-9A-F]{2})|(?=[\w.\-]*(?:" + _SECRET.pattern + r")))(?P<name>[\w.\-]+)=.*",
    re.IGNORECASE | re.DOTALL,
)


def sounds_secret(name: str) -> bool:
    """Whether an option of that name, rightly spelt or nearly, is one that must not be shown."""
    return _SECRET.search(name) is not None


def redact(url: str, known: Collection[str] = ()) -> str:
    """The URL with its passwords and tokens replaced by ``***``.

    A name alone before the ``@`` is hidden too: NATS puts tokens there.

    Args:
        url: what was given as one, well-formed or not.
        known: options whose values may be shown, unless they sound like a secret.
    """
    if "://" not in url:
        # Not a URL at all, perhaps because its slashes were forgotten; the password would be there all the same.
        head, at, tail = url.rpartition("@")
        return f"{HIDDEN}@{tail}" if at and ":" in head else _without_stray_secrets(url)

    url = _CREDENTIALS.sub(lambda found: f"{found['user']}:{HIDDEN}@" if found["secret"] else f"{HIDDEN}@", url)
    url, hash_, _ = url.partition("#")  # perhaps the rest of a password with a raw "#" in it
    bare, question, query = url.partition("?")
    bare = _STRAY_PASSWORD.sub(rf"\g<user>:{HIDDEN}", bare)
    bare = _without_stray_secrets(STRAY_OPTION.sub(rf"&\g<name>={HIDDEN}", bare))
    shown = "&".join(_shown(part, known) for part in query.split("&"))
    return bare + question + shown + (f"#{HIDDEN}" if hash_ else "")


def _without_stray_secrets(text: str) -> str:
    return _STRAY_SECRET.sub(rf"\g<name>={HIDDEN}", text)


def _shown(option: str, known: Collection[str]) -> str:
    name, equals, _ = option.partition("=")
    if not option or (equals and name in known and not sounds_secret(name)):
        return option

    return f"{name}={HIDDEN}" if equals else HIDDEN


def without_secrets(value: object) -> object:
    """The value, if there is no URL in it; else the URL redacted, or, of a list or the like, what is printed of it."""
    if isinstance(value, str):
        return redact(value) if "://" in value else value

    said = repr(value)
    return redact(said) if "://" in said else value


def printable(value: object) -> str:
    """``repr(value)``, with whatever URL is in it redacted."""
    shown = without_secrets(value)
    return shown if isinstance(shown, str) and not isinstance(value, str) else repr(shown)
