"""For authors of drivers: the options of a URL as a schema that reads, validates and explains them.

::

    class PigeonOptions(Schema, frozen=True, kw_only=True):
        lofts: Annotated[int, about("Number of lofts that every message is sent to.", ge=1)] = 1
        feed: Annotated[Literal["corn", "peas"], about("What the pigeons are given.")] = "corn"


    OPTIONS = PigeonOptions.__struct_fields__


    def open(url: Location | str) -> PigeonDriver:
        location = locate(url)
        return PigeonDriver(location.address, read_options(PigeonOptions, location))

An option then may stand in the URL (``pigeon://home?lofts=2``) and in the environment (``RUSTMQ_PIGEON_LOFTS=2``), the
URL wins, and whatever is wrong is a ``ConfigurationError`` with the option's name, its meaning, what it may be, and the
variable it was read from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from rustmq_sdk._loading import load_settings
from rustmq_sdk._settings import Rule as Rule
from rustmq_sdk._settings import Schema as Schema
from rustmq_sdk._settings import about as about
from rustmq_sdk._urls import Location as Location
from rustmq_sdk._urls import locate as locate

S = TypeVar("S", bound=Schema)


def read_options(schema: type[S], location: Location, given: Mapping[str, Any] | None = None) -> S:
    """The options that a URL and the environment name, the others by their defaults.

    Args:
        schema: of the options.
        location: the URL, with no options but the driver's own. Its scheme names the variables:
            ``RUSTMQ_<SCHEME>_<OPTION>``, with ``_`` for what cannot stand in the name of a variable.
        given: what wins over both, already of the right types: what the rest of the URL says, for example.

    Raises:
        ConfigurationError: an option is unknown, does not fit, or contradicts another: all of it in one error.
    """
    return load_settings(schema, location.scheme, given=given or {}, url=location.options, file={}, with_secrets=True)
