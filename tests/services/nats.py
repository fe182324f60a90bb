"""NATS with JetStream, its streams in files."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from pathlib import Path

from tests.services.ports import HOST
from tests.services.programs import NATS
from tests.services.service import Service, Site


class Nats(Service):
    """One node."""

    name = "nats"
    about = "NATS with JetStream on files"
    nodes = ("nats",)
    listeners = ("nats",)
    programs = (NATS,)

    def config(self, site: Site, node: str) -> Path:
        return site.node(node) / "nats.conf"

    def configure(self, site: Site, node: str) -> None:
        jetstream = f"jetstream {{ store_dir: {json.dumps(str(site.node(node)))} }}"
        text = f"host: {HOST}\nport: {site.port(node, 'nats')}\n{jetstream}\n"
        self.config(site, node).write_text(text)

    def command(self, site: Site, node: str) -> list[str]:
        return [NATS.required(), "--config", str(self.config(site, node))]

    def waiting_for(self, site: Site, node: str) -> str | None:
        """It says by itself who it is, and answers a PING when it serves."""
        address = (HOST, site.port(node, "nats"))
        try:
            with socket.create_connection(address, timeout=1) as connection, connection.makefile("rb") as stream:
                kind, _, said = stream.readline().partition(b" ")
                connection.sendall(b'CONNECT {"verbose":false}\r\nPING\r\n')
                answer = stream.readline()
        except OSError as problem:
            return f"an answer on port {site.port(node, 'nats')} ({problem})"

        if kind != b"INFO" or answer != b"PONG\r\n":
            return f"PONG, and it says {answer.decode(errors='replace').strip()!r}"

        return None if json.loads(said).get("jetstream") else "JetStream"

    def variables(self, site: Site) -> Mapping[str, str]:
        return {"NATS_URL": f"nats://{site.address('nats', 'nats')}"}
