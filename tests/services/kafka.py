"""Apache Kafka in KRaft mode, from Maven Central: one node with every kind of listener, or three that may fail."""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
import uuid
import zlib
from collections.abc import Mapping
from pathlib import Path

from tests.services import kafka_wire, processes
from tests.services.certificates import certify
from tests.services.kafka_properties import PASSWORD, SECURE, USER, properties
from tests.services.programs import JAVA, MAVEN, OPENSSL, Program
from tests.services.service import Service, ServiceFailed, ServiceMissing, Site

HERE = Path(__file__).parent
POM = HERE / "pom.xml"

# A node that lives for a test run: no second compiler, no second collector, a heap that three of them can have at once.
JVM = ("-Xms128m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-XX:-UsePerfData")


class Kafka(Service):
    """A cluster of combined nodes (broker and controller); a single one speaks TLS and SASL as well."""

    by_default = True

    def __init__(self, name: str, about: str, *, nodes: int) -> None:
        self.name = name
        self.about = about
        self.nodes = (name,) if nodes == 1 else tuple(f"kafka-{number}" for number in range(1, nodes + 1))
        self.listeners = ("plain", "controller", *(SECURE if nodes == 1 else ()))
        self.programs = (JAVA, OPENSSL) if nodes == 1 else (JAVA,)

    @property
    def release(self) -> str:
        """KAFKA_VERSION in the environment, else what the pom says."""
        found = re.search(r"<kafka\.version>(.*?)</kafka\.version>", POM.read_text())
        assert found is not None, POM
        return os.environ.get("KAFKA_VERSION") or found[1]

    def needs(self, artifacts: Path) -> tuple[Program, ...]:
        return self.programs if _jars(artifacts, self.release).exists() else (*self.programs, MAVEN)

    def fetch(self, artifacts: Path) -> None:
        jars = _jars(artifacts, self.release)
        if jars.exists():
            return

        # Whole or not at all: the folder gets its name when everything is in it.
        partial = jars.with_name(f"{jars.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        done = subprocess.run(
            [
                *(MAVEN.required(), "--batch-mode", "--quiet", "--file", str(POM), "dependency:copy-dependencies"),
                *("-DincludeScope=runtime", f"-DoutputDirectory={partial}", f"-Dkafka.version={self.release}"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            said = "\n".join(done.stdout.splitlines()[:5])
            raise ServiceMissing(f"Maven could not get Apache Kafka {self.release}:\n{said}")

        partial.rename(jars)

    def config(self, site: Site, node: str) -> Path:
        return site.node(node) / "server.properties"

    def configure(self, site: Site, node: str) -> None:
        text = properties(site, self.nodes, self.nodes.index(node) + 1)
        self.config(site, node).write_text(text)

    def create(self, site: Site, node: str) -> None:
        """Formats the storage, with the users of SCRAM in it: they have no other way in before the first start."""
        if len(self.nodes) == 1:
            certify(site.folder / "certificates")

        users = [
            word
            for mechanism in (("SCRAM-SHA-256", "SCRAM-SHA-512") if len(self.nodes) == 1 else ())
            for word in ("--add-scram", f"{mechanism}=[name={USER},password={PASSWORD}]")
        ]
        cluster = base64.urlsafe_b64encode(uuid.uuid5(uuid.NAMESPACE_URL, str(site.folder)).bytes).rstrip(b"=").decode()
        tool = self._java(site, "kafka.tools.StorageTool", "format", f"--cluster-id={cluster}")
        done = subprocess.run(
            [*tool, *users, "--config", str(self.config(site, node))],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise ServiceFailed(f"the storage of {node} could not be formatted:\n{done.stdout}{done.stderr}")

    def command(self, site: Site, node: str) -> list[str]:
        return self._java(site, "kafka.Kafka", str(self.config(site, node)))

    def waiting_for(self, site: Site, node: str) -> str | None:
        """A node serves when it knows itself and all that are running, and can say who coordinates a group.

        Asking for a coordinator makes the topic of offsets, so that the first consumer of a test does not wait for it.
        """
        port = site.port(node, "plain")
        try:
            known = kafka_wire.brokers(port)
            if not known.issuperset(self._running(site) | {self.nodes.index(node) + 1}):
                return "word of all the nodes that run" if known else "a controller"

            return None if kafka_wire.has_coordinator(port, "ready?") else "a coordinator of groups"
        except (OSError, EOFError) as problem:
            return f"an answer on port {port} ({problem})"

    def _running(self, site: Site) -> set[int]:
        """Their numbers. Each hears of the others on its own: one may serve before another knows that it is back."""
        nodes = enumerate(self.nodes, 1)
        return {number for number, node in nodes if processes.find(self.program, self.config(site, node))}

    def variables(self, site: Site) -> Mapping[str, str]:
        prefix = self.name.upper()
        found = {f"{prefix}_BOOTSTRAP": ",".join(site.address(node, "plain") for node in self.nodes)}
        if len(self.nodes) == 1:
            for listener in SECURE:
                found[f"{prefix}_{listener.upper().replace('-', '_')}_BOOTSTRAP"] = site.address(self.name, listener)

            folder = site.folder / "certificates"
            found |= {f"{prefix}_USER": USER, f"{prefix}_PASSWORD": PASSWORD}
            found |= {f"{prefix}_CA": str(folder / "ca.pem")}
            found |= {f"{prefix}_CERTIFICATE": str(folder / "client.pem"), f"{prefix}_KEY": str(folder / "client.key")}

        return found

    def _java(self, site: Site, main: str, *arguments: str) -> list[str]:
        logging = f"-Dlog4j2.configurationFile={HERE / 'log4j2.xml'}"
        crash = f"-XX:ErrorFile={site.folder}/crash-%p.log"
        jars = f"{_jars(site.artifacts, site.release)}/*"
        return [JAVA.required(), *JVM, crash, logging, "-cp", jars, main, *arguments]


def _jars(artifacts: Path, release: str) -> Path:
    """Where the jars of one version of Kafka and of this pom are."""
    return artifacts / f"kafka-{release}-{zlib.crc32(POM.read_bytes()):08x}"
