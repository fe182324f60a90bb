"""The texts of exceptions that others wrote: of handlers, routes, decoders and observers.

Their ``__str__`` and ``__repr__`` are others' code as well, and may raise. What fails there must not take the place of
the error that is to be told, or a message whose handler fails could neither be tried again nor be given up.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable


def text_of(error: BaseException) -> str:
    """``str(error)``, or what to say where that fails."""
    return _said(str, error)


def repr_of(error: BaseException) -> str:
    """``repr(error)``, or what to say where that fails."""
    return _said(repr, error)


def name_and_text(error: BaseException) -> str:
    """The class and the text, as the last line of a traceback has them."""
    return f"{type(error).__name__}: {text_of(error)}"


def stack_of(error: BaseException) -> str:
    """The traceback, with those of its causes."""
    try:
        return "".join(traceback.format_exception(error))
    except Exception as raised:
        return f"<the traceback of {type(error).__name__} cannot be had: {type(raised).__name__}>"


def _said(how: Callable[[BaseException], str], error: BaseException) -> str:
    try:
        return how(error)
    except Exception as raised:
        return f"<{how.__name__}() of {type(error).__name__} raises {type(raised).__name__}>"
