"""What a service has to say about itself, so that it can be installed, started, asked and stopped by its name."""

from __future__ import annotations

import signal
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.services.programs import Program, first_missing


class ServiceFailed(Exception):
    """A service did not do what was asked. The text says what was expected, what came, and what to do."""


class ServiceMissing(ServiceFailed):
    """A service cannot be started here, because something that it needs is not installed."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where one service lives in one checkout.

    Attributes:
        folder: its own; everything in it is gone after ``down``.
        artifacts: shared by all services of the checkout, and kept; downloads go there.
        ports: its ports, chosen once, by ``node/listener``.
        release: of which version it is; empty for what the system has installed.
    """

    folder: Path
    artifacts: Path
    ports: Mapping[str, int]
    release: str = ""

    def node(self, node: str) -> Path:
        """The folder of one node."""
        return self.folder / node

    def port(self, node: str, listener: str) -> int:
        """The port of one listener of one node."""
        return self.ports[f"{node}/{listener}"]

    def address(self, node: str, listener: str) -> str:
        """``127.0.0.1:PORT``."""
        return f"127.0.0.1:{self.port(node, listener)}"


class Service(ABC):
    """One entry of the catalogue: a server of one node, or a cluster of several.

    Attributes:
        name: what people type.
        about: one line for the status table.
        nodes: their names, unique among all services; the name of the service where there is one node only.
        listeners: the ports each node needs; the first is the one that people are shown.
        programs: what has to be on this machine whenever it runs; the first is what its processes run.
        by_default: whether ``scripts/services up`` without names starts it.
        farewell: how a node is ended whose data are thrown away; SIGTERM where it has more to clean up than its folder.
        patience: how many seconds a start may take.
    """

    name: str
    about: str
    nodes: tuple[str, ...]
    listeners: tuple[str, ...]
    programs: tuple[Program, ...]
    by_default = False
    farewell = signal.SIGKILL
    patience = 60.0

    @property
    def program(self) -> str:
        """What its processes run, by the name of the file."""
        return self.programs[0].name

    @property
    def release(self) -> str:
        """The version that a new start would have; empty for what the system has installed."""
        return ""

    def needs(self, artifacts: Path) -> tuple[Program, ...]:
        """The programs without which it cannot be started now."""
        return self.programs

    def missing(self, artifacts: Path) -> str | None:
        """Why it cannot be started on this machine, and what to do about it; None if it can."""
        return first_missing(self.needs(artifacts))

    def fetch(self, artifacts: Path) -> None:  # noqa: B027 - most need nothing
        """Brings what no package of the system brings. Does nothing where that is done.

        Raises:
            ServiceMissing: it is not to be had.
        """

    @abstractmethod
    def config(self, site: Site, node: str) -> Path:
        """The file that ``command`` names as an argument of its own. By it a process is known to be this node."""

    @abstractmethod
    def configure(self, site: Site, node: str) -> None:
        """Writes the configuration; before every start, so that it is never older than this program."""

    def create(self, site: Site, node: str) -> None:  # noqa: B027 - most create their data themselves
        """Makes empty data, once, after ``configure``."""

    @abstractmethod
    def command(self, site: Site, node: str) -> list[str]:
        """What runs in the foreground until it is told to end, the path of the program first."""

    @abstractmethod
    def waiting_for(self, site: Site, node: str) -> str | None:
        """What is missing until this node serves; None if it serves. Asked often, so it answers within seconds."""

    @abstractmethod
    def variables(self, site: Site) -> Mapping[str, str]:
        """What a program has to know to use it, for ``scripts/services env``."""
