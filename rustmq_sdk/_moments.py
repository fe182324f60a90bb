"""Moments: brokers count milliseconds since the epoch, programs have a ``datetime``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from rustmq_sdk.errors import ConfigurationError

NAIVE = "a datetime without a time zone means another moment on every machine"
NAIVE_FIX = "Add tzinfo, for example datetime(…, tzinfo=timezone.utc)"

DOUBTFUL = 10**11
"""Milliseconds below which a number is rather one of seconds: in 1973, before any log was written."""

_EPOCH = datetime.fromtimestamp(0, UTC)
_MILLISECOND = timedelta(milliseconds=1)


def milliseconds(field: str, moment: int | datetime) -> int:
    """The whole milliseconds since the epoch at that moment; a number is that already, and is returned as it is.

    Args:
        field: what the caller named the moment, for errors.
        moment: what was given for it.

    Raises:
        ConfigurationError: a ``datetime`` without a time zone.
    """
    if not isinstance(moment, datetime):
        return moment

    if moment.tzinfo is None:
        raise ConfigurationError(NAIVE, field=field, value=moment, fix=NAIVE_FIX)

    # By whole numbers: ``timestamp()`` is a float, and a thousand times that is now and then a little too small.
    return (moment - _EPOCH) // _MILLISECOND
