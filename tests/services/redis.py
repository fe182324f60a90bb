"""Redis, as a queue is compared with it: every write is on the disk before it is answered."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path

from tests.services.ports import HOST
from tests.services.programs import REDIS
from tests.services.service import Service, Site


class Redis(Service):
    """One node."""

    name = "redis"
    about = "Redis, appendfsync always"
    nodes = ("redis",)
    listeners = ("redis",)
    programs = (REDIS,)

    def config(self, site: Site, node: str) -> Path:
        return site.node(node) / "redis.conf"

    def configure(self, site: Site, node: str) -> None:
        lines = {
            "bind": HOST,
            "port": site.port(node, "redis"),
            "dir": f'"{site.node(node)}"',
            "daemonize": "no",
            # Its command line is how it is recognised, and it would write over it.
            "set-proc-title": "no",
            "appendonly": "yes",
            "appendfsync": "always",
            "save": '""',
        }
        self.config(site, node).write_text("".join(f"{key} {value}\n" for key, value in lines.items()))

    def command(self, site: Site, node: str) -> list[str]:
        return [REDIS.required(), str(self.config(site, node))]

    def waiting_for(self, site: Site, node: str) -> str | None:
        try:
            with socket.create_connection((HOST, site.port(node, "redis")), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                answer = connection.recv(100)
        except OSError as problem:
            return f"an answer on port {site.port(node, 'redis')} ({problem})"

        return None if answer == b"+PONG\r\n" else f"PONG, and it says {answer.decode(errors='replace').strip()!r}"

    def variables(self, site: Site) -> Mapping[str, str]:
        return {"REDIS_URL": f"redis://{site.address('redis', 'redis')}"}
