"""A service, held up by a process that ends with this one, however this one ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time

from tests.services.checkout import ROOT
from tests.services.service import ServiceFailed, ServiceMissing

POLL = 0.02
MISSING = 3
# The first start on a machine downloads Kafka.
PATIENCE = 300.0


class Holding:
    """Starts at once, in the background, and serves when ``wait`` returns.

    A process of its own does the work: it shares no interpreter with tests that measure time or count threads, and it
    stops the service again when its standard input ends, which happens to the killed as well.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.problem: ServiceFailed | None = None
        self._ready = False
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self._process = subprocess.Popen(
            # Without site-packages, as scripts/services does.
            [sys.executable, "-S", "-m", "tests.services", "hold", name],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=self._said,
            stderr=subprocess.STDOUT,
            # Ctrl-C is for this process, which then says what is to be done.
            start_new_session=True,
        )

    def wait(self) -> None:
        """Returns when the service serves.

        Raises:
            ServiceMissing: something it needs is not installed, or not to be had.
            ServiceFailed: it did not start.
        """
        deadline = time.monotonic() + PATIENCE
        while not self._ready and self.problem is None:
            ended = self._process.poll() is not None
            said = self._text()
            self._ready = said.endswith("ready\n")
            if ended:
                kind = ServiceMissing if self._process.returncode == MISSING else ServiceFailed
                self.problem = kind(said.strip())
            elif time.monotonic() > deadline:
                self.problem = ServiceFailed(f"{self.name} did not start within {PATIENCE:.0f} seconds: {said.strip()}")
            elif not self._ready:
                time.sleep(POLL)

        if self.problem is not None:
            raise self.problem

    def let_go(self) -> None:
        """Asks for the end; ``close`` waits for it."""
        if not self._text().endswith("ready\n"):
            self._process.send_signal(signal.SIGTERM)

        assert self._process.stdin is not None
        self._process.stdin.close()

    def close(self) -> None:
        """Waits until the service is down again, or left to those who still need it."""
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

        self._said.close()

    def _text(self) -> str:
        self._said.seek(0)
        return self._said.read().decode(errors="replace")
