"""What may stand after the ``?`` of a ``memory://`` URL."""

from __future__ import annotations

from typing import Annotated, Literal

from rustmq_sdk.options import Schema, about


class MemoryOptions(Schema, frozen=True, kw_only=True):
    """The options of the URL. Making one raises ``ConfigurationError`` for whatever does not fit."""

    kind: Annotated[Literal["log", "queue"], about("Whether topics are logs or queues.")] = "log"
    max_messages: Annotated[
        int | None, about("Number of messages of a partition that are kept. None: all of them.", ge=1)
    ] = None
    checkpoint_room: Annotated[
        int | None, about("Number of bytes that a checkpoint may hold beside its offset. None: no limit.", ge=0)
    ] = None
    without: Annotated[
        str, about("Names of capabilities to do without, with commas between: a lesser backend to try programs with.")
    ] = ""

    @property
    def lacking(self) -> tuple[str, ...]:
        """The names in ``without``."""
        return tuple(filter(None, self.without.split(",")))


OPTIONS: tuple[str, ...] = MemoryOptions.__struct_fields__
"""The names of the URL options."""
