"""What people are shown: a table of services, and what a program has to know to use them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from tests.services.catalogue import CATALOGUE
from tests.services.checkout import Checkout
from tests.services.control import is_up
from tests.services.service import Service, ServiceFailed


def table(checkout: Checkout) -> Iterator[str]:
    """A line for each node, and what is wrong with it, if something is."""
    rows = [row for service in CATALOGUE.values() for row in _rows(checkout, service)]
    name, state, address = (max(len(row[column]) for row in rows) for column in range(3))
    for row in rows:
        yield f"{row[0]:{name}}  {row[1]:{state}}  {row[2]:{address}}  {row[3]}".rstrip()


def exports(checkout: Checkout) -> Iterator[str]:
    """Lines for a shell: the variables of the services that run."""
    for service in CATALOGUE.values():
        site = checkout.site(service)
        if site is not None and any(is_up(checkout, service, node) for node in service.nodes):
            for key, value in service.variables(site).items():
                yield f"export {key}={shlex.quote(value)}"


def _rows(checkout: Checkout, service: Service) -> Iterator[tuple[str, str, str, str]]:
    if len(service.nodes) > 1:
        yield service.name, "", "", service.about

    for node in service.nodes:
        name, about = (f"  {node}", "") if len(service.nodes) > 1 else (node, service.about)
        state, address, problem = _state(checkout, service, node)
        yield name, state, address, problem or about


def _state(checkout: Checkout, service: Service, node: str) -> tuple[str, str, str]:
    """One word, where it listens, and what is wrong."""
    try:
        site = checkout.site(service)
    except ServiceFailed as problem:
        return "broken", "", str(problem)

    running = is_up(checkout, service, node)
    if site is None:
        astray = f"runs, and nobody knows where it listens; run: scripts/services down {service.name}"
        return ("astray", "", astray) if running else ("down", "", service.missing(checkout.artifacts) or "")

    address = site.address(node, service.listeners[0])
    if not running:
        return "stopped", address, f"its data are kept; run: scripts/services up {service.name}"

    lacks = service.waiting_for(site, node)
    return ("up", address, "") if lacks is None else ("starting", address, f"waits for {lacks}")
