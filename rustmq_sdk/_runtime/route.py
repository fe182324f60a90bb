"""From what the user gave as a dead-letter route to one that is awaited."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from rustmq_sdk._runtime.dead_letters import Put, Route
from rustmq_sdk.config import ConsumerConfig, rule_of_routes
from rustmq_sdk.errors import ConfigurationError
from rustmq_sdk.slots import PlacedDeadLetterQueue
from rustmq_sdk.values import DeadLetter


def route_of(given: Any, config: ConsumerConfig) -> Route | None:
    """From a ``DeadLetterQueue``, or a callable that is what its ``put`` would be; None for no route.

    Args:
        given: a route that is taken instead of that of the settings; None if there is none.
        config: the settings.

    Raises:
        ConfigurationError: what was given is no route, or the settings name a topic and nobody gave what writes it.
    """
    route = config.dead_letters if given is None else given
    if route is not None:
        rule = rule_of_routes(route)
        if rule.wrong:
            raise rule.error(route)

        places = route.places if isinstance(route, PlacedDeadLetterQueue) else None
        return Route(_awaitable(getattr(route, "put", route)), places)

    if config.dead_letter_topic is not None:
        raise ConfigurationError(
            "a consumer made from hand-made slots has no sink to write a topic with",
            field="dead_letter_topic",
            value=config.dead_letter_topic,
            fix="Give dead_letters=…, or use client.consumer(…)",
        )

    return None


def _awaitable(put: Any) -> Put:
    async def call(letters: Sequence[DeadLetter]) -> None:
        result = put(letters)
        # A plain function is fine where it does not block: a list in a test, a logger.
        if inspect.isawaitable(result):
            await result

    return call
