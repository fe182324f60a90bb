"""The ``rustmq`` command (extra ``cli``): look into a log, send to it, check a file."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the command; says what to install where its packages are missing."""
    try:
        from rustmq_sdk.cli._commands import app
    except ModuleNotFoundError as error:
        if error.name not in {"typer", "rich"}:
            raise

        sys.exit(f"the rustmq command needs {error.name}: pip install 'rustmq-sdk[cli]' (from a clone: '.[cli]')")

    app()
