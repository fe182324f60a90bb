"""Starting, killing, restarting and stopping services. What was interrupted on the way, the next call puts right."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from tests.services import ports, processes, programs
from tests.services.checkout import Checkout
from tests.services.locks import alone, is_used, together
from tests.services.service import Service, ServiceFailed, ServiceMissing, Site

POLL = 0.05
TAIL = 15
# What has crashed just now may have its ports for a moment longer than its command line.
FREED = 1.0

Say = Callable[[str], object]


def provide(checkout: Checkout, service: Service, *, install: bool, say: Say) -> None:
    """Sees to it that everything is here that the service is made of.

    Args:
        checkout: of which checkout.
        service: what is to be started.
        install: whether packages of the system may be installed.
        say: told what takes time.

    Raises:
        ServiceMissing: something is not here; with the line to run.
    """
    with alone(checkout.lock("artifacts")):
        if install and (problem := service.missing(checkout.artifacts)):
            say(f"{service.name}: {problem}")
            programs.install(service.needs(checkout.artifacts))

        if problem := service.missing(checkout.artifacts):
            raise ServiceMissing(f"{service.name} cannot be started here: {problem}")

        checkout.artifacts.mkdir(parents=True, exist_ok=True)
        service.fetch(checkout.artifacts)


def up(checkout: Checkout, service: Service, *, keep: bool, install: bool, say: Say) -> Site:
    """Starts what does not run of a service, on the ports and data it has, and waits until every node serves.

    Args:
        checkout: of which checkout.
        service: what to start.
        keep: whether it stays until somebody calls ``down``, as people want; programs ``hold`` it instead.
        install: whether packages of the system may be installed.
        say: told what takes time.

    Raises:
        ServiceMissing: something it needs is not here.
        ServiceFailed: it did not start; what this call has started is stopped again, as it is on Ctrl-C.
    """
    provide(checkout, service, install=install, say=say)
    with alone(checkout.lock(service.name)):
        site = checkout.site(service) or checkout.settle(service)
        if site.release != service.release:
            advice = f"run: scripts/services down {service.name}"
            raise ServiceFailed(f"{service.name} is {site.release} here, and {service.release} was asked for; {advice}")

        asleep = [node for node in service.nodes if not _is_running(service, site, node)]
        if asleep:
            say(f"{service.name}: starting")

        _start(checkout, service, site, asleep)
        if keep:
            checkout.kept(service).touch()

    return site


def restart(checkout: Checkout, service: Service, node: str) -> None:
    """Ends a node in good order, if it runs, and starts it again on the same ports and data; waits until it serves.

    Raises:
        ServiceFailed: the service is down, or the node did not start.
    """
    with alone(checkout.lock(service.name)):
        site = checkout.site(service)
        if site is None:
            raise ServiceFailed(f"{service.name} is down and has no data; run: scripts/services up {service.name}")

        _stop(service, site, node, signal.SIGTERM)
        _start(checkout, service, site, [node])


def kill(checkout: Checkout, service: Service, node: str) -> bool:
    """Ends a node with SIGKILL and waits until it is gone. Whether it ran."""
    with alone(checkout.lock(service.name)):
        return _stop(service, checkout.somewhere(service), node, signal.SIGKILL)


def down(checkout: Checkout, service: Service) -> bool:
    """Ends every node and throws ports and data away; logs stay. Whether there was anything."""
    with alone(checkout.lock(service.name)):
        return _take_down(checkout, service)


@contextmanager
def hold(checkout: Checkout, service: Service, *, say: Say) -> Iterator[Site]:
    """The service, up; afterwards down again, unless a person has brought it up or others still hold it.

    Installs no packages of the system: that is for people to ask for.

    Raises:
        ServiceMissing: something it needs is not here.
        ServiceFailed: it did not start.
    """
    try:
        with together(checkout.users(service)):
            yield up(checkout, service, keep=False, install=False, say=say)
    finally:
        with alone(checkout.lock(service.name)):
            if not checkout.kept(service).exists() and not is_used(checkout.users(service)):
                _take_down(checkout, service)


def is_up(checkout: Checkout, service: Service, node: str) -> bool:
    """Whether a process of this node runs; it may not serve yet."""
    return _is_running(service, checkout.somewhere(service), node)


def _take_down(checkout: Checkout, service: Service) -> bool:
    site = checkout.somewhere(service)
    existed = site.folder.exists()
    stopped = [_stop(service, site, node, service.farewell) for node in service.nodes]
    checkout.forget(service)
    return existed or any(stopped)


def _start(checkout: Checkout, service: Service, site: Site, nodes: Sequence[str]) -> None:
    """Starts these, which do not run, and waits for all of the service that run; all or none of them."""
    _check_ports(service, site, nodes)
    try:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda node: _prepare(service, site, node), nodes))

        for node in nodes:
            checkout.begin_log(node)
            processes.start(service.command(site, node), service.config(site, node), checkout.log(node))

        _wait(checkout, service, site, [node for node in service.nodes if _is_running(service, site, node)] + [*nodes])
    except BaseException:
        for node in nodes:
            _stop(service, site, node, signal.SIGKILL)

        raise


def _prepare(service: Service, site: Site, node: str) -> None:
    """Configuration and, once, data. Data whose making was interrupted are made anew."""
    folder, made = site.node(node), site.node(node) / ".made"
    if not made.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)

    service.configure(site, node)
    if not made.exists():
        service.create(site, node)
        made.touch()


def _check_ports(service: Service, site: Site, nodes: Sequence[str]) -> None:
    for node in nodes:
        for listener in service.listeners:
            if not ports.is_free(site.port(node, listener), within=FREED):
                raise ServiceFailed(
                    f"port {site.port(node, listener)}, {node}'s own ({listener}), has been taken by another program; "
                    f"for other ports, and empty data, run: scripts/services down {service.name}, and then up"
                )


def _wait(checkout: Checkout, service: Service, site: Site, nodes: Sequence[str]) -> None:
    deadline = time.monotonic() + service.patience
    waiting = dict.fromkeys(nodes)
    while waiting:
        for node in list(waiting):
            problem = service.waiting_for(site, node)
            if problem is None:
                del waiting[node]
            elif not _is_running(service, site, node):
                raise ServiceFailed(f"{node} ended while it was starting.\n{_last_words(checkout, node)}")
            elif time.monotonic() > deadline:
                late = f"{node} does not serve after {service.patience:g} seconds: it lacks {problem}."
                raise ServiceFailed(f"{late}\n{_last_words(checkout, node)}")

        if waiting:
            time.sleep(POLL)


def _last_words(checkout: Checkout, node: str) -> str:
    log = checkout.log(node)
    lines = log.read_text(errors="replace").splitlines()[-TAIL:] if log.exists() else []
    return "\n".join([f"The end of {log}:", *(f"    {line}" for line in lines)])


def _is_running(service: Service, site: Site, node: str) -> bool:
    return bool(processes.find(service.program, service.config(site, node)))


def _stop(service: Service, site: Site, node: str, how: signal.Signals) -> bool:
    return processes.stop(service.program, service.config(site, node), how)
