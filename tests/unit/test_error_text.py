"""Exceptions of others whose own code fails when they are asked for their text."""

from __future__ import annotations

from rustmq_sdk._error_text import name_and_text, repr_of, stack_of, text_of


class Broken(Exception):
    def __str__(self) -> str:
        raise AttributeError("no status")

    __repr__ = __str__


class NoText(Exception):
    def __str__(self) -> str:
        return 3  # type: ignore[return-value]  # noqa: PLE0307


class Parse(SyntaxError):
    """Whose attributes the traceback module trusts."""

    text = 3  # type: ignore[assignment]
    lineno = 1
    msg = "no"


def test_what_can_be_had_is_as_ever() -> None:
    error = ValueError("does not parse")
    assert (text_of(error), repr_of(error)) == ("does not parse", "ValueError('does not parse')")
    assert name_and_text(error) == "ValueError: does not parse"
    assert stack_of(error) == "ValueError: does not parse\n"


def test_what_cannot_be_had_is_named() -> None:
    assert text_of(Broken()) == "<str() of Broken raises AttributeError>"
    assert repr_of(Broken()) == "<repr() of Broken raises AttributeError>"
    assert name_and_text(NoText()) == "NoText: <str() of NoText raises TypeError>"


def test_a_traceback_is_there_whatever_fails() -> None:
    assert "Broken" in stack_of(Broken())
    assert stack_of(Parse()) == "<the traceback of Parse cannot be had: AttributeError>"
