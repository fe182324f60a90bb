"""Programs that servers need on this machine: whether they are there, and how they come there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

# Debian puts servers where the PATH of people who are not root does not look.
PLACES = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin"))


@dataclass(frozen=True, slots=True)
class Program:
    """A program by its name, the Debian packages that have it, best first, and where others find it."""

    name: str
    packages: tuple[str, ...]
    elsewhere: str
    java: int = 0

    @property
    def path(self) -> str | None:
        """Where it is; None if it is nowhere."""
        return shutil.which(self.name, path=PLACES)

    def problem(self) -> str | None:
        """What is wrong with it; None if nothing is."""
        if self.path is None:
            return f"{self.name} is not installed"

        if self.java and (found := java_version(self.path)) < self.java:
            return f"{self.path} is Java {found or 'of an unknown version'}, and {self.java} or newer is needed"

        return None

    def required(self) -> str:
        """Where it is, for commands; AssertionError if nobody has asked for its problem first."""
        assert self.path is not None, self.name
        return self.path


# Each release of a distribution has some of these, and its default-jre may be older than 17.
JRES = ("openjdk-17-jre-headless", "openjdk-21-jre-headless", "openjdk-25-jre-headless")
JAVA = Program("java", JRES, "https://adoptium.net, version 17 or newer", java=17)
MAVEN = Program("mvn", ("maven",), "https://maven.apache.org")
OPENSSL = Program("openssl", ("openssl",), "https://www.openssl.org")
REDIS = Program("redis-server", ("redis-server",), "https://redis.io")
NATS = Program("nats-server", ("nats-server",), "https://nats.io")


def first_missing(programs: Iterable[Program]) -> str | None:
    """What is missing of these, with the line that mends it; None if nothing is."""
    wrong = [(program, problem) for program in programs if (problem := program.problem())]
    if not wrong:
        return None

    problems = "; ".join(problem for _, problem in wrong)
    if shutil.which("apt-get") is None:
        return f"{problems}; see {', '.join(program.elsewhere for program, _ in wrong)}"

    return f"{problems}; run: {' '.join(['sudo', *apt(program for program, _ in wrong)])}"


def apt(programs: Iterable[Program]) -> list[str]:
    """The command that installs these on Debian and its children, without ``sudo``."""
    return ["apt-get", "install", "-y", "--no-install-recommends", *dict.fromkeys(_package(one) for one in programs)]


def install(programs: Iterable[Program]) -> None:
    """Installs what is missing of these, where that takes no password. The caller asks again what is missing then."""
    wrong = [program for program in programs if program.problem()]
    if not wrong or shutil.which("apt-get") is None or (root := _as_root()) is None:
        return

    noninteractive = [*root, "env", "DEBIAN_FRONTEND=noninteractive"]
    if _run([*noninteractive, *apt(wrong)]) != 0:
        # A new machine has no lists of packages, an old one lists versions that are gone.
        _run([*noninteractive, "apt-get", "update"])
        _run([*noninteractive, *apt(wrong)])


def java_version(java: str) -> int:
    """Its feature release, 17 for 17.0.15 and 8 for 1.8.0; 0 if it does not say."""
    release = Path(java).resolve().parents[1] / "release"
    try:
        text = release.read_text(errors="replace")
    except OSError:
        # Not every installation has that file next to it; asking costs a tenth of a second.
        asked = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
        text = asked.stderr

    found = re.search(r'(?:JAVA_VERSION=|version )"(?:1\.)?(\d+)', text)
    return int(found[1]) if found else 0


def _package(program: Program) -> str:
    """The first of its packages that this system knows."""
    if len(program.packages) == 1:
        return program.packages[0]

    known = (name for name in program.packages if _run(["apt-cache", "show", name]) == 0)
    return next(known, program.packages[0])


def _as_root() -> list[str] | None:
    """What stands before a command that has to run as root; None if that would ask for a password."""
    if os.geteuid() == 0:
        return []

    if shutil.which("sudo") is not None and _run(["sudo", "-n", "true"]) == 0:
        return ["sudo", "-n"]

    return None


def _run(command: list[str]) -> int:
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
    ).returncode
