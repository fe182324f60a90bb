"""The measurements still run: in their smallest form, whatever their numbers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.services.kafka_server import KafkaServer

pytestmark = pytest.mark.timeout(180)

ROOT = Path(__file__).parents[2]

COMMANDS = {
    "latency": "--rates 50 2000 --seconds 0.6 --rounds 1",
    "memory": "--messages 2500",
    "partitions": "--counts 1 3 --messages 1000 --rounds 1",
    "ledger": "--windows 1 1000 --messages 2000 --rounds 1",
    "checkpoints": "--windows 1000 --rounds 1",
    "parts": "--messages 3000 --rounds 1",
    "peers": "--only rustmq_sdk table --messages 10 --rounds 1",
}
"""The rest of ``peers`` needs clients, and servers, that only benchmarks want."""

COMPARE = "--only getmany(500) receive(), --messages 2000 --sizes 100 --rounds 1"
"""Of the clients that tests have."""


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_measurement_prints_a_table_without_gaps(command: str) -> None:
    measure(command, *COMMANDS[command].split())


@pytest.mark.slow
def test_clients_of_kafka_are_compared(kafka: KafkaServer) -> None:
    measure("compare", *COMPARE.split(), "--url", f"kafka://{kafka.bootstrap}")


def measure(*arguments: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "bench", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    table = [line for line in run.stdout.splitlines() if line.startswith("|")]
    assert len(table) > 2
    assert not [line for line in table if "ChildFailed" in line or "bench." in line]


def test_every_command_is_tried_here() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "bench", "--help"], cwd=ROOT, capture_output=True, text=True, timeout=50, check=True
    )
    offered = {line.split()[0] for line in run.stdout.splitlines() if line.startswith("    ") and line[4:5].isalpha()}
    assert offered - {"COMMAND", "all"} == {*COMMANDS, "compare"}
