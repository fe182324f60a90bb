"""A node of the service in ``echo.py``, as a program: ``echo_server.py CONFIG``."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path


def serve(config: Path) -> None:
    port, behaviour = json.loads(config.read_text())
    if behaviour == "dies":
        sys.exit("I cannot go on like this")

    count = config.with_name("starts")
    number = int(count.read_text()) + 1 if count.exists() else 1
    count.write_text(str(number))
    with socket.create_server(("127.0.0.1", port)) as server:
        while True:
            connection, _ = server.accept()
            with connection:
                if behaviour == "serves":
                    connection.sendall(str(number).encode())


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
