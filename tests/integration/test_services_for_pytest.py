"""Servers in a run of the tests: started when asked for, used if they are up, named if missing, and gone at the end."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services import control, processes, status
from tests.services.catalogue import CATALOGUE
from tests.services.checkout import ROOT, Checkout
from tests.services.kafka_server import KafkaServer

REDIS = CATALOGUE["redis"]

TESTS = """
import socket

def test_needs_nothing(): ...

def test_needs_redis(redis_url):
    host, port = redis_url.removeprefix("redis://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"PING\\r\\n")
        assert connection.recv(100) == b"+PONG\\r\\n"
"""

HOLDER = """
import time
from tests.services.holding import Holding

holding = Holding("redis")
holding.wait()
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Checkout]:
    """An empty one, and the one of every process that a test starts."""
    monkeypatch.setenv("SERVICES_FOLDER", str(tmp_path / "services"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    checkout = Checkout()
    yield checkout
    for service in CATALOGUE.values():
        control.down(checkout, service)


def run(folder: Path, *arguments: str, exits: int = 0) -> str:
    """What pytest says of TESTS."""
    (folder / "test_it.py").write_text(TESTS)
    plugins = ("-p", "rustmq_sdk.testing.pytest_plugin", "-p", "tests.services.plugin", "-p", "no:cacheprovider")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "pytest", *plugins, "-v", "-rs", "test_it.py", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == exits, done.stdout + done.stderr
    return done.stdout


def say(words: bytes, port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(words)
        return connection.recv(1000)


@pytest.mark.service("redis")
class TestARunOfTheTests:
    def test_starts_what_is_asked_for_and_stops_it(self, checkout: Checkout, tmp_path: Path) -> None:
        assert "2 passed" in run(tmp_path)
        assert checkout.log("redis").exists()
        assert checkout.site(REDIS) is None

    def test_starts_nothing_for_tests_that_need_nothing(self, checkout: Checkout, tmp_path: Path) -> None:
        assert "1 passed, 1 deselected" in run(tmp_path, "-k", "nothing")
        assert "2 tests collected" in run(tmp_path, "--collect-only")
        assert not checkout.folder.exists()

    def test_uses_what_is_up_and_leaves_it_up(self, checkout: Checkout, tmp_path: Path) -> None:
        site = control.up(checkout, REDIS, keep=True, install=False, say=lambda line: None)
        assert "2 passed" in run(tmp_path)
        assert say(b"PING\r\n", site.port("redis", "redis")) == b"+PONG\r\n"

    def test_uses_what_somebody_else_runs(self, checkout: Checkout, tmp_path: Path) -> None:
        site = control.up(checkout, REDIS, keep=True, install=False, say=lambda line: None)
        elsewhere = {"SERVICES_FOLDER": str(tmp_path / "elsewhere")}
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(*elsewhere.popitem())
            assert "2 passed" in run(tmp_path, f"--service=redis=redis://{site.address('redis', 'redis')}")

        assert not (tmp_path / "elsewhere").exists()

    @pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="waits for a process that is nobody's child; Linux can")
    def test_leaves_nothing_behind_even_if_it_is_killed(self, checkout: Checkout) -> None:
        with subprocess.Popen([sys.executable, "-c", HOLDER], cwd=ROOT, stdout=subprocess.PIPE) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"ready\n"
            (server,) = processes.find(REDIS.program, REDIS.config(checkout.somewhere(REDIS), "redis"))
            end = os.pidfd_open(server)
            try:
                holder.kill()
                assert select.select([end], [], [], 20)[0], "Redis outlives the tests that it was started for"
            finally:
                os.close(end)

    def test_says_what_did_not_start(self, checkout: Checkout, tmp_path: Path) -> None:
        site = checkout.settle(REDIS)
        with socket.create_server(("127.0.0.1", site.port("redis", "redis"))):
            said = run(tmp_path, exits=1)

        assert "1 passed, 1 error" in said
        assert f"needs redis: port {site.port('redis', 'redis')}, redis's own (redis), has been taken" in said


class TestWhereAServerIsNotInstalled:
    @pytest.fixture(autouse=True)
    def nothing_installed(self, checkout: Checkout, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        program = "import tests.services.programs as p; p.PLACES = '/nowhere'"
        (tmp_path / "sitecustomize.py").write_text(program)
        monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")

    def test_the_header_and_the_skipped_test_name_it(self, tmp_path: Path) -> None:
        said = run(tmp_path)
        assert "1 passed, 1 skipped" in said
        assert "MISSING kafka (java is not installed; mvn is not installed" in said.replace(
            "openssl is not installed; ", ""
        )
        assert "needs redis: redis-server is not installed" in said

    def test_it_is_a_failure_where_servers_are_required(self, tmp_path: Path) -> None:
        said = run(tmp_path, "--require-services", exits=1)
        assert "needs redis, and --require-services is given: redis-server is not installed" in said


@pytest.mark.service("kafka")
class TestWhereKafkaCannotBeDownloaded:
    @pytest.fixture(autouse=True)
    def offline(self, checkout: Checkout, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        maven = tmp_path / "bin" / "mvn"
        maven.parent.mkdir()
        maven.write_text("#!/bin/sh\necho the network is unreachable\nexit 1\n")
        maven.chmod(0o755)
        monkeypatch.setenv("PATH", f"{maven.parent}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setattr(sys.modules[__name__], "TESTS", "def test_needs_kafka(kafka): ...")

    def test_the_skipped_test_says_what_maven_said(self, tmp_path: Path) -> None:
        said = run(tmp_path)
        assert "1 skipped" in said
        assert "needs kafka: Maven could not get Apache Kafka" in said
        assert "the network is unreachable" in said

    def test_it_is_a_failure_where_servers_are_required(self, tmp_path: Path) -> None:
        said = run(tmp_path, "--require-services", exits=1)
        assert "needs kafka, and --require-services is given: Maven could not get Apache Kafka" in said


@pytest.mark.parametrize("text", ["redis", "radish=127.0.0.1:1"])
def test_a_server_is_named_with_its_address(checkout: Checkout, tmp_path: Path, text: str) -> None:
    run(tmp_path, f"--service={text}", exits=4)


@pytest.mark.service("redis")
def test_redis_has_on_the_disk_what_it_has_answered(checkout: Checkout) -> None:
    site = control.up(checkout, REDIS, keep=True, install=False, say=lambda line: None)
    assert say(b"SET name Ada\r\n", site.port("redis", "redis")) == b"+OK\r\n"
    control.kill(checkout, REDIS, "redis")
    control.restart(checkout, REDIS, "redis")
    assert say(b"GET name\r\n", site.port("redis", "redis")) == b"$3\r\nAda\r\n"


def test_nats_has_streams(nats_url: str) -> None:
    port = int(nats_url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection, connection.makefile("rb") as stream:
        assert b'"jetstream":true' in stream.readline()
        connection.sendall(b'CONNECT {"verbose":false}\r\nSUB answer 1\r\nPUB $JS.API.INFO answer 0\r\n\r\nPING\r\n')
        assert any(b"MSG answer" in stream.readline() for _ in range(4))


class TestTheCommandLine:
    def services(self, *arguments: str, exits: int = 0) -> str:
        done = subprocess.run(
            [ROOT / "scripts" / "services", *arguments],
            env={**os.environ, "PYTHON": sys.executable},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == exits, done.stdout + done.stderr
        return done.stdout + done.stderr

    @pytest.mark.service("redis")
    def test_from_up_to_down(self, checkout: Checkout) -> None:
        assert "redis is up: 127.0.0.1:" in self.services("up", "redis")
        assert "export REDIS_URL=redis://127.0.0.1:" in self.services("env")
        assert self.services("kill", "redis", "redis") == "redis is killed\n"
        assert "stopped" in self.services("status")
        assert self.services("restart", "redis") == "redis is up again\n"
        assert self.services("down", "redis") == "redis is down\n"
        assert self.services("down", "redis") == "redis was down already\n"
        assert self.services("env") == ""

    def test_says_what_it_does_not_know(self, checkout: Checkout) -> None:
        assert self.services("up", "postgres", exits=1).startswith("no service is called 'postgres'; there are kafka,")
        assert "the following arguments are required: NAME" in self.services("kill", exits=2)

    @pytest.mark.service("kafka")
    def test_an_interrupted_start_leaves_nothing_running(self, checkout: Checkout) -> None:
        checkout.folder.mkdir()
        checkout.artifacts.symlink_to(ROOT / ".services" / "artifacts")
        # What a shell has started in the background ignores Ctrl-C, and so do its children.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        starting = subprocess.Popen(
            [sys.executable, "-S", "-m", "tests.services", "up", "kafka"],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        signal.signal(signal.SIGINT, before)
        assert starting.stderr is not None
        assert starting.stderr.readline() == "kafka: starting\n"
        starting.send_signal(signal.SIGINT)
        _, said = starting.communicate(timeout=50)
        assert (starting.returncode, said) == (130, "interrupted; what was being started has been stopped\n")
        kafka = CATALOGUE["kafka"]
        assert processes.find("java", kafka.config(checkout.somewhere(kafka), "kafka")) == []


def test_the_table_shows_what_runs(kafka: KafkaServer) -> None:
    if "kafka" not in kafka.nodes:
        pytest.skip("needs a Kafka of this checkout")

    (line,) = [line for line in status.table(Checkout()) if line.startswith("kafka ")]
    assert line.split()[:3] == ["kafka", "up", kafka.bootstrap]
    assert f"export KAFKA_BOOTSTRAP={kafka.bootstrap}" in status.exports(Checkout())
