"""The smallest service there is: a node answers with the number of times that it was started on its data."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.services.programs import Program
from tests.services.service import Service, Site

SERVER = Path(__file__).with_name("echo_server.py")


class Echo(Service):
    """As many nodes as are named."""

    name = "echo"
    about = "for the tests of the tests"
    listeners = ("echo",)
    program = sys.executable
    programs: tuple[Program, ...] = ()
    patience = 20.0
    behaviour = "serves"

    def __init__(self, *nodes: str) -> None:
        self.nodes = nodes or ("echo",)

    def config(self, site: Site, node: str) -> Path:
        return site.node(node) / "echo.json"

    def configure(self, site: Site, node: str) -> None:
        self.config(site, node).write_text(json.dumps([site.port(node, "echo"), self.behaviour]))

    def command(self, site: Site, node: str) -> list[str]:
        return [sys.executable, "-S", str(SERVER), str(self.config(site, node))]

    def waiting_for(self, site: Site, node: str) -> str | None:
        try:
            return None if starts(site, node) else "an answer"
        except OSError:
            return "a door"

    def variables(self, site: Site) -> Mapping[str, str]:
        return {"ECHO": ",".join(site.address(node, "echo") for node in self.nodes)}


def starts(site: Site, node: str) -> int:
    """What a node answers."""
    with socket.create_connection(("127.0.0.1", site.port(node, "echo")), timeout=5) as connection:
        return int(connection.recv(100) or b"0")
