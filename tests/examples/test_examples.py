"""Every example runs on both loops, says what it is meant to say, and nothing on stderr."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rustmq_sdk.testing import BACKENDS
from tests.services.kafka_server import KafkaServer

pytestmark = pytest.mark.timeout(180)

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("[0-9]*.py"))

SAYS = {
    "01_first_consumer": """\
sent Ada, stored at offset 0
sent Grace, stored at offset 1
sent Edsger, stored at offset 2
Hello Ada! You are number 0.
Hello Grace! You are number 1.
Hello Edsger! You are number 2.
sent Barbara, stored at offset 3
Hello Barbara! You are number 3.
""",
    "04_pause_and_resume": """\
out of paper: pausing the printer
  mail letter 0
  mail letter 1
  mail letter 2
paper is back: resuming jobs[0]
  print page 0
  print page 1
  print page 2
""",
    "05_batches": "1000 readings in 10 transactions, 24.5 degrees on average\n",
    "06_seek_and_replay": """\
first: price 0, price 1, price 2, price 3, price 4, price 5
from offset 4: price 4, price 5
from three o'clock: price 3, price 4, price 5
committed: 6
""",
    "08_fastapi_lifespan": """\
{'offset': 0}
{'offset': 1}
mailed: ['ada', 'grace']
""",
    "11_kafka_in_key_order": """\
order 7: placed, paid, (nobody to pack), packed, shipped
order 8: placed, paid, (nobody to pack), packed, shipped
order 9: placed, paid, (nobody to pack), packed, shipped
order 10: placed, paid, (nobody to pack), packed, shipped
order 11: placed, paid, (nobody to pack), packed, shipped
""",
}


def check_retries(said: str) -> None:
    expected = [
        f"order {order}, attempt {n}" for order, tries in ((1, 1), (2, 2), (3, 3), (4, 1)) for n in range(1, tries + 1)
    ]
    lines = said.splitlines()
    assert sorted(line for line in lines if line.startswith("order")) == expected
    assert sorted(line for line in lines if line.startswith("dead")) == [
        'dead: {"id": 3} after 3 attempts: ConnectionError: the carrier does not answer',
        'dead: {"id": 4} after 1 attempts: the address is empty',
    ]


def check_keys(said: str) -> None:
    *accounts, last = said.splitlines()
    assert accounts == [f"{name}: [0, 1, 2, 3, 4]" for name in ("ada", "barbara", "edsger", "grace")]
    assert 100 <= int(last.split()[-2]) < 400, "400 ms is what one at a time would take"


def check_shutdown(said: str) -> None:
    first, *packed, returned, following = said.splitlines()
    assert first == "SIGTERM arrives while four parcels are being packed"
    assert sorted(packed) == [f"packed parcel {number}" for number in range(4)], "which of them is first is chance"
    assert returned == "run() has returned; leaving the context commits"
    assert following == "the next run goes on with parcel 4, attempt 1"


def check_tests(said: str) -> None:
    assert "3 passed" in said


def check_driver(said: str) -> None:
    first, second = said.split("lag: 0 bytes\n")[:2]
    assert sorted(first.splitlines()) == [
        "byte 0, attempt 1: GET /",
        "byte 0, attempt 2: GET /",
        "byte 6, attempt 1: GET /about",
    ]
    assert second == "byte 17, attempt 1: GET /favicon.ico\nbyte 34, attempt 1: POST /\n"


CHECKS: dict[str, Callable[[str], None]] = {
    "02_retries_and_dead_letters": check_retries,
    "03_concurrency_by_key": check_keys,
    "07_graceful_shutdown": check_shutdown,
    "09_testing_a_handler": check_tests,
    "10_writing_a_driver": check_driver,
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_says_what_it_shows_and_leaves_no_log_behind(
    example: Path, backend: str, run: Callable[..., Any], tmp_path: Path
) -> None:
    ended = run(example, backend=backend)
    assert ended.stderr == ""
    assert list(tmp_path.rglob("*.db*")) == []
    if example.stem in SAYS:
        assert ended.stdout == SAYS[example.stem]
    else:
        CHECKS[example.stem](ended.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_same_program_runs_on_kafka(backend: str, run: Callable[..., Any], kafka: KafkaServer) -> None:
    (example,) = (path for path in EXAMPLES if path.stem.startswith("11_"))
    for _ in range(2):  # the second time the topic is there, and the group has a position in it
        ended = run(example, backend=backend, url=f"kafka://{kafka.bootstrap}")
        assert ended.stderr == ""
        assert ended.stdout == SAYS[example.stem]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short_and_says_at_its_top_what_it_shows(example: Path) -> None:
    lines = example.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith('"""')
    assert len(lines) <= 60


def test_the_readme_lists_every_example() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in EXAMPLES if f"examples/{path.name}" not in readme] == []
