"""What scripts/services promises: servers come up and answer, keep ports and data, and nothing is left running."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.echo import Echo, starts
from tests.services import control, ports, processes
from tests.services.catalogue import nodes, services
from tests.services.checkout import Checkout
from tests.services.programs import Program, java_version
from tests.services.service import Service, ServiceFailed, ServiceMissing, Site


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Checkout]:
    checkout = Checkout(tmp_path / "services")
    yield checkout
    control.down(checkout, Echo("echo", "echo-1", "echo-2"))


def up(checkout: Checkout, service: Service, *, keep: bool = True) -> Site:
    return control.up(checkout, service, keep=keep, install=False, say=lambda line: None)


def running(checkout: Checkout, service: Service) -> list[int]:
    site = checkout.somewhere(service)
    return [pid for node in service.nodes for pid in processes.find(service.program, service.config(site, node))]


def test_after_up_every_node_answers_and_after_down_nothing_is_left_but_the_log(checkout: Checkout) -> None:
    echo = Echo("echo-1", "echo-2")
    site = up(checkout, echo)
    assert [starts(site, node) for node in echo.nodes] == [1, 1]
    assert control.down(checkout, echo)
    assert running(checkout, echo) == []
    assert not site.folder.exists()
    assert checkout.log("echo-1").exists()
    assert not control.down(checkout, echo)


def test_a_second_up_leaves_what_runs_alone_and_starts_what_does_not(checkout: Checkout) -> None:
    echo = Echo("echo-1", "echo-2")
    site, before = up(checkout, echo), running(checkout, echo)
    assert up(checkout, echo) == site
    assert running(checkout, echo) == before
    assert control.kill(checkout, echo, "echo-2")
    assert running(checkout, echo) == before[:1]
    up(checkout, echo)
    assert running(checkout, echo)[0] == before[0]
    assert [starts(site, node) for node in echo.nodes] == [1, 2]


def test_a_killed_node_comes_back_on_the_same_port_with_the_same_data(checkout: Checkout) -> None:
    echo = Echo()
    site = up(checkout, echo)
    assert control.kill(checkout, echo, "echo")
    assert not control.kill(checkout, echo, "echo")
    control.restart(checkout, echo, "echo")
    assert starts(site, "echo") == 2
    control.restart(checkout, echo, "echo")
    assert starts(site, "echo") == 3
    assert len(running(checkout, echo)) == 1


def test_two_checkouts_know_nothing_of_each_other(checkout: Checkout, tmp_path: Path) -> None:
    echo, other = Echo(), Checkout(tmp_path / "other")
    ours, theirs = up(checkout, echo), up(other, echo)
    assert ours.ports != theirs.ports
    control.down(other, echo)
    assert starts(ours, "echo") == 1


def test_only_the_program_itself_is_taken_for_a_node(checkout: Checkout) -> None:
    echo = Echo()
    config = echo.config(up(checkout, echo), "echo")
    reader = subprocess.Popen(["tail", "-f", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        control.down(checkout, echo)
        assert (reader.poll(), other.poll()) == (None, None)
    finally:
        for process in (reader, other):
            process.kill()
            process.communicate()


def test_nodes_are_found_without_proc_as_well(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("ps") is None:
        pytest.skip("there is no ps here, and /proc is all there is")

    echo = Echo()
    up(checkout, echo)
    before = running(checkout, echo)
    monkeypatch.setattr(processes, "_command_lines", processes._command_lines_of_ps)
    assert running(checkout, echo) == before
    assert control.kill(checkout, echo, "echo")
    assert running(checkout, echo) == []


def test_restart_wants_something_to_start_again(checkout: Checkout) -> None:
    with pytest.raises(ServiceFailed, match="echo is down and has no data; run: scripts/services up echo"):
        control.restart(checkout, Echo(), "echo")


def test_a_node_that_dies_while_starting_has_its_last_words_quoted(checkout: Checkout) -> None:
    echo = Echo()
    echo.behaviour = "dies"
    with pytest.raises(ServiceFailed, match=r"(?s)echo ended while it was starting.*I cannot go on like this"):
        up(checkout, echo)


def test_a_node_that_never_serves_is_stopped_and_said_to_lack_something(checkout: Checkout) -> None:
    echo = Echo()
    echo.behaviour, echo.patience = "is mute", 0.5
    with pytest.raises(ServiceFailed, match=r"echo does not serve after 0.5 seconds: it lacks an? (answer|door)"):
        up(checkout, echo)

    assert running(checkout, echo) == []


def test_an_interrupted_up_stops_what_it_has_started_and_nothing_else(checkout: Checkout) -> None:
    class Interrupted(Echo):
        def waiting_for(self, site: Site, node: str) -> str | None:
            raise KeyboardInterrupt

    up(checkout, Echo("echo-1", "echo-2"))
    before = running(checkout, Echo("echo-1", "echo-2"))
    control.kill(checkout, Echo("echo-1", "echo-2"), "echo-2")
    with pytest.raises(KeyboardInterrupt):
        up(checkout, Interrupted("echo-1", "echo-2"))

    assert running(checkout, Echo("echo-1", "echo-2")) == before[:1]
    up(checkout, Echo("echo-1", "echo-2"))


def test_data_that_were_being_made_when_it_was_interrupted_are_made_anew(checkout: Checkout) -> None:
    class Slow(Echo):
        def create(self, site: Site, node: str) -> None:
            (site.node(node) / "starts").write_text("not a num")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        up(checkout, Slow())

    assert starts(up(checkout, Echo()), "echo") == 1


def test_services_that_start_beside_each_other_choose_different_ports(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = [port for port in ports.RANGE if ports.is_free(port)][:4]
    monkeypatch.setattr(ports, "RANGE", free)
    echo, other = Echo("echo-1", "echo-2"), Echo("echo-3", "echo-4")
    other.name = "other"
    chosen = [port for service in (echo, other) for port in checkout.settle(service).ports.values()]
    assert sorted(chosen) == free, "nobody listens yet, and both know"


def test_a_port_that_somebody_has_taken_meanwhile_is_named(checkout: Checkout) -> None:
    echo = Echo()
    site = up(checkout, echo)
    port = site.port("echo", "echo")
    control.kill(checkout, echo, "echo")
    with (
        socket.create_server(("127.0.0.1", port)),
        pytest.raises(ServiceFailed, match=rf"port {port}.*taken by another program.*run: scripts/services down echo"),
    ):
        up(checkout, echo)


def test_what_is_written_down_wrongly_is_an_error_and_down_puts_it_right(checkout: Checkout) -> None:
    echo = Echo()
    site = up(checkout, echo)
    (site.folder / "site.json").write_text("{")
    with pytest.raises(ServiceFailed, match=r"should say which ports echo has.*run: scripts/services down echo"):
        up(checkout, echo)

    control.down(checkout, echo)
    assert running(checkout, echo) == []
    assert starts(up(checkout, echo), "echo") == 1


def test_another_release_is_not_given_for_the_one_asked_for(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    up(checkout, Echo())
    monkeypatch.setattr(Echo, "release", "2")
    with pytest.raises(ServiceFailed, match="and 2 was asked for; run: scripts/services down echo"):
        up(checkout, Echo())


def test_a_program_that_is_missing_is_named_with_the_line_that_brings_it(checkout: Checkout) -> None:
    echo = Echo()
    echo.programs = (Program("no-such-program", ("no-such-package",), "https://example.org"),)
    with pytest.raises(ServiceMissing, match=r"no-such-program is not installed; (run: .*no-such-package|see https)"):
        up(checkout, echo)

    assert not checkout.somewhere(echo).folder.exists()


@pytest.mark.parametrize(
    ("release", "said", "version"),
    [
        ('JAVA_VERSION="17.0.15"\n', "", 17),
        ('IMPLEMENTOR="x"\nJAVA_VERSION="25"\n', "", 25),
        (None, 'openjdk version "21.0.2" 2024-01-16', 21),
        (None, 'java version "1.8.0_412"', 8),
        (None, "The operation could not be completed. Unable to locate a Java Runtime.", 0),
    ],
)
def test_a_java_is_as_new_as_it_says(tmp_path: Path, release: str | None, said: str, version: int) -> None:
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text(f"#!/bin/sh\necho '{said}' >&2\n")
    java.chmod(0o755)
    if release is not None:
        (tmp_path / "release").write_text(release)

    assert java_version(str(java)) == version


def test_what_is_held_is_down_afterwards(checkout: Checkout) -> None:
    with control.hold(checkout, Echo(), say=lambda line: None) as site:
        assert starts(site, "echo") == 1

    assert running(checkout, Echo()) == []


def test_what_two_hold_stays_until_the_second_lets_go(checkout: Checkout) -> None:
    with control.hold(checkout, Echo(), say=lambda line: None) as site:
        with control.hold(checkout, Echo(), say=lambda line: None):
            pass

        assert starts(site, "echo") == 1

    assert running(checkout, Echo()) == []


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_what_a_person_has_brought_up_stays(checkout: Checkout, when: str) -> None:
    if when == "before":
        up(checkout, Echo())

    with control.hold(checkout, Echo(), say=lambda line: None):
        if when == "meanwhile":
            up(checkout, Echo())

    assert len(running(checkout, Echo())) == 1


def test_a_node_that_does_not_listen_to_sigterm_is_killed(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "GRACE", 0)
    echo = Echo()
    site = up(checkout, echo)
    assert processes.stop(echo.program, echo.config(site, "echo"), signal.SIGCONT)
    assert running(checkout, echo) == []


def test_names_that_mean_nothing_are_answered_with_those_that_do() -> None:
    assert [service.name for service in services(["redis", "kafka", "redis"])] == ["redis", "kafka"]
    assert [node for _, node in nodes(["kafka3", "kafka-2", "redis"])] == ["kafka-1", "kafka-2", "kafka-3", "redis"]
    with pytest.raises(ServiceFailed, match="no service is called 'kafka-1'; there are kafka, kafka3, redis, nats"):
        services(["kafka-1"])

    with pytest.raises(ServiceFailed, match="no node is called 'kakfa'; there are kafka, kafka3, redis, nats, kafka-1"):
        nodes(["kakfa"])
