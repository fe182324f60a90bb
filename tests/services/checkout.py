"""What one checkout remembers of its services, in ``.services``: ports, data, logs, downloads; nothing of processes."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

from tests.services import ports
from tests.services.locks import alone
from tests.services.service import Service, ServiceFailed, Site

ROOT = Path(__file__).parents[2]
LONG_LOG = 10 * 1024 * 1024


class Checkout:
    """The folder of one checkout; two of them know nothing of each other.

    Args:
        folder: where everything is kept; by default SERVICES_FOLDER in the environment, else ``.services`` of the
            checkout.
    """

    def __init__(self, folder: Path | None = None) -> None:
        # Resolved, because the configuration's path in a command line is how a process is recognised.
        self.folder = (folder or Path(os.environ.get("SERVICES_FOLDER") or ROOT / ".services")).resolve()
        self.artifacts = self.folder / "artifacts"

    def lock(self, name: str) -> Path:
        """Held by whoever starts or stops this service."""
        return self.folder / "locks" / f"{name}.lock"

    def users(self, service: Service) -> Path:
        """Held, together with others, by everybody who needs this service to stay."""
        return self.folder / "locks" / f"{service.name}.users"

    def kept(self, service: Service) -> Path:
        """Exists if a person has brought this service up; then it stays until a person takes it down."""
        return self._home(service) / "kept"

    def log(self, node: str) -> Path:
        """What a node has said; kept when it is taken down."""
        return self.folder / "logs" / f"{node}.log"

    def site(self, service: Service) -> Site | None:
        """Where the service lives; None if it is down.

        Raises:
            ServiceFailed: what is written there makes no sense.
        """
        written = self._home(service) / "site.json"
        try:
            known = json.loads(written.read_text())
            return Site(self._home(service), self.artifacts, dict(known["ports"]), str(known["release"]))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as problem:
            advice = f"run: scripts/services down {service.name}"
            raise ServiceFailed(
                f"{written} should say which ports {service.name} has ({problem!r}); {advice}"
            ) from problem

    def settle(self, service: Service) -> Site:
        """Gives a service that is down a place and free ports."""
        home = self._home(service)
        home.mkdir(parents=True, exist_ok=True)
        names = [f"{node}/{listener}" for node in service.nodes for listener in service.listeners]
        # Services start beside each other, and a port is free to all eyes until its server listens, seconds later.
        with alone(self.lock("ports")):
            chosen = ports.choose(names, taken=self._ports())
            partial = home / "site.json.partial"
            partial.write_text(json.dumps({"release": service.release, "ports": chosen}, indent=1))
            partial.rename(home / "site.json")

        return Site(home, self.artifacts, chosen, service.release)

    def somewhere(self, service: Service) -> Site:
        """Where it lives or would live, even if nothing sensible is written there: enough to find its processes."""
        return Site(self._home(service), self.artifacts, {})

    def forget(self, service: Service) -> None:
        """Removes its data and ports. Logs and downloads stay."""
        shutil.rmtree(self._home(service), ignore_errors=True)

    def begin_log(self, node: str) -> None:
        """Moves a log that has grown long out of the way; one old one is kept."""
        log = self.log(node)
        if log.exists() and log.stat().st_size > LONG_LOG:
            log.replace(log.with_name(f"{log.name}.1"))

    def _ports(self) -> set[int]:
        """Those of all services that have some; of what makes no sense it is said elsewhere."""
        found: set[int] = set()
        for written in self.folder.glob("sites/*/site.json"):
            with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
                found.update(json.loads(written.read_text())["ports"].values())

        return found

    def _home(self, service: Service) -> Path:
        return self.folder / "sites" / service.name
